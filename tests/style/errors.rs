//! Error texts: each cause is printed once. Whoever prints an error prints its whole chain of sources, so a
//! text that repeats its source would print it twice.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;

/// Crates whose errors are still to be corrected. No crate is added to this list.
const EXCEPTED: &[&str] = &["consensus", "core", "model", "net", "node", "sim", "store", "xtask"];

/// Whether the rule applies to this file.
pub(crate) fn applies(path: &str) -> bool {
    let excepted = |name: &&str| path.starts_with(&format!("agent/{name}/"));
    path.starts_with("agent/") && path.ends_with(".rs") && !EXCEPTED.iter().any(excepted)
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
    assert!(applies("agent/launcher/src/exec.rs") && !applies("agent/core/src/lib.rs"));
}
