//! Component settings -> askama template -> typed Pod -> patches -> file.
