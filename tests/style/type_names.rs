//! A type name means one thing in the whole workspace: a reader who meets it in another crate, or searches
//! for it, finds the same thing.
//!
//! Structs, enums, unions, traits and aliases count, including private ones and those inside functions. Types
//! of tests do not count, nor do the types that an implementation of a trait has to name.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::Finding;
use super::rust::is_test_item;
use super::tree::TextFile;

/// Where a type is declared: file and line.
type Declared<'a> = (&'a str, usize);

/// Checks every crate under `agent/`.
pub(crate) fn check(files: &[TextFile], is_test: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found: BTreeMap<String, Vec<Declared<'_>>> = BTreeMap::new();
    let sources = files.iter().filter(|file| file.path.starts_with("agent/") && file.path.ends_with(".rs"));
    for file in sources.filter(|file| !is_test(&file.path)) {
        let Ok(tree) = syn::parse_file(&file.text) else { continue };
        let mut names = Names::default();
        names.visit_file(&tree);
        for (name, line) in names.0 {
            found.entry(name).or_default().push((&file.path, line));
        }
    }
    found.into_iter().flat_map(|(name, places)| findings(&name, &places)).collect()
}

/// One finding for each place but the first.
fn findings(name: &str, places: &[Declared<'_>]) -> Vec<Finding> {
    let Some(((first, line), others)) = places.split_first() else { return Vec::new() };
    let what = format!("the type {name} is another one than that of {first}:{line}");
    others.iter().map(|(path, line)| Finding::new(path, *line, what.clone())).collect()
}

/// The types that a file declares, with their lines.
#[derive(Default)]
struct Names(Vec<(String, usize)>);

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_test_item(item) {
            return;
        }
        let name = match item {
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Union(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::TraitAlias(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.0.extend(name.map(|name| (name.to_string(), name.span().start().line)));
        visit::visit_item(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let file =
            |(path, text): &(&str, &str)| TextFile { path: (*path).to_owned(), text: (*text).to_owned() };
        let files: Vec<TextFile> = files.iter().map(file).collect();
        check(&files, |path| path.contains("/tests/")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_of_two_types_is_found_wherever_they_are() {
        let files = [
            ("agent/a/src/lib.rs", "pub struct One;\nfn f() {\n    enum Two {}\n}"),
            ("agent/b/src/x.rs", "trait One {}\ntype Two = u8;"),
        ];
        let wanted = [
            "agent/b/src/x.rs:1: the type One is another one than that of agent/a/src/lib.rs:1",
            "agent/b/src/x.rs:2: the type Two is another one than that of agent/a/src/lib.rs:3",
        ];
        assert_eq!(found(&files), wanted);
    }

    #[test]
    fn types_of_tests_and_associated_types_may_repeat_a_name() {
        let files = [
            ("agent/a/src/lib.rs", "pub struct One; impl Iterator for One { type Item = u8; }"),
            ("agent/a/src/x.rs", "#[cfg(test)] mod tests { struct One; } trait T { type Item; }"),
            ("agent/a/tests/x.rs", "struct One;"),
            ("tests/x.rs", "struct One;"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }
}
