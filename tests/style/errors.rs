//! Error texts: each cause is printed once. Whoever prints an error prints its whole chain of sources, so a
//! text that repeats its source would print it twice.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::rust::RustFile;

/// How an error is printed in its alternate form. Made of halves, so that it does not find itself.
const ALTERNATE: &[&str] = &[concat!("{error", ":#}"), concat!("{:", "#}")];

/// Whether the rule applies to this file.
pub(crate) fn applies(path: &str) -> bool {
    path.starts_with("agent/") && path.ends_with(".rs")
}

/// Whether errors are printed here to people who run the product.
pub(crate) fn prints_for_people(path: &str) -> bool {
    applies(path) && !path.starts_with("agent/xtask/")
}

/// Finds lines that print an error with all its sources by its alternate form. That repeats a source which a
/// library's error has in its own text as well; `words::with_causes` does not.
pub(crate) fn check_printed(file: &RustFile, text: &str) -> Vec<Finding> {
    let lines = text.lines().zip(1..).filter(|(line, _)| ALTERNATE.iter().any(|form| line.contains(form)));
    let shipped = lines.filter(|(_, n)| !file.is_test_line(*n));
    shipped.map(|(_, n)| Finding::new(&file.path, n, "an error is printed by words::with_causes")).collect()
}

/// Finds every `#[error("...")]` that prints a field which is also the error's source.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let Ok(tree) = syn::parse_file(text) else { return Vec::new() };
    let mut texts = Texts { path, findings: Vec::new() };
    texts.visit_file(&tree);
    texts.findings
}

struct Texts<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Texts<'_> {
    fn check(&mut self, attributes: &[syn::Attribute], fields: &syn::Fields) {
        let sources = sources(fields);
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("error")) {
            let Ok(list) = attribute.meta.require_list() else { continue };
            let printed = list.tokens.to_string();
            for source in sources.iter().filter(|source| prints(&printed, source)) {
                let line = attribute.span().start().line;
                let what = format!("the text repeats its source {source}: the chain is printed as well");
                self.findings.push(Finding::new(self.path, line, what));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Texts<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.check(&item.attrs, &item.fields);
        visit::visit_item_struct(self, item);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.check(&variant.attrs, &variant.fields);
        visit::visit_variant(self, variant);
    }
}

/// Names of the fields that are sources. A field without a name is named by its number.
fn sources(fields: &syn::Fields) -> Vec<String> {
    let marked = |field: &syn::Field| {
        field
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("source") || attribute.path().is_ident("from"))
    };
    let name = |(at, field): (usize, &syn::Field)| {
        field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string)
    };
    let named = fields.iter().enumerate().map(|(at, field)| (name((at, field)), marked(field)));
    named.filter(|(name, marked)| *marked || name == "source").map(|(name, _)| name).collect()
}

fn prints(printed: &str, source: &str) -> bool {
    ["}", ":"].iter().any(|end| printed.contains(&format!("{{{source}{end}")))
}

#[test]
fn a_source_in_the_text_is_found_however_it_is_marked() {
    let text = r#"
#[derive(Debug, thiserror::Error)]
enum E {
    #[error("{path}: {source}")]
    A { path: String, source: io::Error },
    #[error("x: {0}")]
    B(#[from] io::Error),
    #[error("{path}")]
    C { path: String, source: io::Error },
    #[error("{0} is no name")]
    D(String),
    #[error(transparent)]
    F(#[from] io::Error),
    #[error("last: {last:?}")]
    G { #[source] last: io::Error },
}
#[derive(thiserror::Error)]
#[error("all: {0}")]
struct S(#[source] io::Error);
"#;
    let lines: Vec<usize> = check("agent/x/src/a.rs", text).iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [4, 6, 14, 18]);
    assert!(applies("agent/launcher/src/exec.rs") && !applies("tests/cli/errors.rs"));
}

#[test]
fn an_error_in_its_alternate_form_is_found_outside_tests() {
    let line = |form: &str| format!("fn f(error: E) {{ say!(\"{form}\", error); }}\n");
    let text = ALTERNATE.iter().map(|form| line(form)).collect::<String>() + &line("{error}");
    let check = |text: &str| {
        let file = RustFile::parse("agent/x/src/a.rs", text).expect("Rust");
        check_printed(&file, text).iter().map(|finding| finding.line).collect::<Vec<_>>()
    };
    assert_eq!(check(&text), [1, 2]);
    assert!(check(&format!("#[cfg(test)]\nmod tests {{\n{text}}}\n")).is_empty());
    assert!(prints_for_people("agent/cli/src/vm.rs") && !prints_for_people("agent/xtask/src/main.rs"));
}
