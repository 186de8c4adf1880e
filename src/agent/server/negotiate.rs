//! Which form of a page a client wants, by its `Accept`, as the API machinery of Kubernetes chooses it for pages that are
//! text, or an object of `config.k8s.io` for who names its version and kind.

/// How an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Yaml,
}

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFormat {
    Text,
    Object { form: Form, version: &'static str },
}

const GROUP: &str = "config.k8s.io";
const VERSIONS: [&str; 2] = ["v1alpha1", "v1beta1"];
/// The forms, in the order in which they are tried for who takes any.
const FORMS: [(&str, &str, Option<Form>); 3] =
    [("application", "json", Some(Form::Json)), ("application", "yaml", Some(Form::Yaml)), ("text", "plain", None)];

/// One of the types that a client takes.
#[derive(Default)]
struct Clause<'a> {
    group: (&'a str, &'a str),
    quality: f64,
    /// `as`, `g` and `v`, where one of them is named.
    object: Option<[&'a str; 3]>,
    /// It asks for a stream or for another version of the server, which there is none of.
    impossible: bool,
}

/// The best of what `accept` takes, text where it says nothing; None for nothing that there is.
pub fn negotiate(accept: &str, kind: &str) -> Option<ResponseFormat> {
    if accept.trim().is_empty() {
        return Some(ResponseFormat::Text);
    }
    let mut clauses: Vec<Clause> = accept.split(',').filter_map(clause).collect();
    // The finer one first among equals, then in the order of the header.
    let coarse = |clause: &Clause| (clause.group.0 == "*", clause.group.1 == "*");
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(coarse(a).cmp(&coarse(b))));
    clauses.iter().find_map(|clause| FORMS.iter().find_map(|form| clause.takes(*form, kind)))
}

/// Reads `type/subtype;name=value;...`.
fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let group = parts.next().filter(|media| !media.is_empty())?;
    let group = if group == "*" { ("*", "*") } else { group.split_once('/')? };
    let mut clause = Clause { group: (group.0.trim(), group.1.trim()), quality: 1.0, ..Clause::default() };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim();
        match name.trim() {
            "q" => clause.quality = value.parse().unwrap_or(1.0),
            "as" => clause.object.get_or_insert_default()[0] = value,
            "g" => clause.object.get_or_insert_default()[1] = value,
            "v" => clause.object.get_or_insert_default()[2] = value,
            "stream" | "sv" => clause.impossible |= !value.is_empty(),
            _ => {}
        }
    }
    Some(clause)
}

impl Clause<'_> {
    fn takes(&self, (group, subtype, form): (&str, &str, Option<Form>), kind: &str) -> Option<ResponseFormat> {
        let is = |own: &str, other: &str| own == "*" || own == other;
        if self.impossible || !is(self.group.0, group) || !is(self.group.1, subtype) {
            return None;
        }
        match (form, self.object) {
            (None, None) => Some(ResponseFormat::Text),
            (Some(form), Some([of_kind, GROUP, version])) if of_kind == kind => {
                let version = VERSIONS.into_iter().find(|known| *known == version)?;
                Some(ResponseFormat::Object { form, version })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_text_unless_their_object_is_asked_for_by_name() {
        let json = |version| Some(ResponseFormat::Object { form: Form::Json, version });
        let yaml = Some(ResponseFormat::Object { form: Form::Yaml, version: "v1beta1" });
        for (accept, expected) in [
            ("", Some(ResponseFormat::Text)),
            ("*/*", Some(ResponseFormat::Text)),
            ("text/plain", Some(ResponseFormat::Text)),
            ("text/*;q=0.1", Some(ResponseFormat::Text)),
            ("text/html", None),
            ("application/json", None),
            ("application/json;v=v1alpha1;g=config.k8s.io;as=Flagz", json("v1alpha1")),
            ("application/json; v=v1beta1; g=config.k8s.io; as=Flagz; pretty=1", json("v1beta1")),
            ("application/yaml;v=v1beta1;g=config.k8s.io;as=Flagz", yaml),
            ("application/*;v=v1beta1;g=config.k8s.io;as=Flagz", json("v1beta1")),
            ("application/cbor;v=v1beta1;g=config.k8s.io;as=Flagz", None),
            ("application/json;v=v1;g=config.k8s.io;as=Flagz", None),
            ("application/json;v=v1beta1;g=config.k8s.io;as=Statusz", None),
            ("application/json;v=v1beta1;as=Flagz", None),
            ("text/plain;as=Flagz", None),
            ("text/plain;q=0.5, application/yaml;v=v1beta1;g=config.k8s.io;as=Flagz;q=0.7", yaml),
            ("*/*, application/json;v=v1beta1;g=config.k8s.io;as=Flagz", json("v1beta1")),
            ("text/html,application/json;v=v1beta1;g=config.k8s.io;as=Flagz;q=0.5", json("v1beta1")),
            ("text/plain;stream=watch", None),
            ("nonsense, text/plain", Some(ResponseFormat::Text)),
        ] {
            assert_eq!(negotiate(accept, "Flagz"), expected, "{accept}");
        }
    }
}
