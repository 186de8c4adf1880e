//! Progress, prompts, tables and `-o text|json|yaml`.
