//! A Rust file, parsed as far as the checks need it: tokens with lines, functions, and what is test code.

use std::ops::RangeInclusive;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A parsed Rust file; lines count from 1.
#[derive(Debug)]
pub(crate) struct RustFile {
    pub(crate) path: String,
    /// Lines of the whole file.
    pub(crate) lines: usize,
    /// Identifiers and punctuation, in order. The text of a literal is empty, and that of a delimiter is its
    /// bracket.
    pub(crate) tokens: Vec<Token>,
    /// Every function with a body.
    pub(crate) functions: Vec<Function>,
    /// Whether all of it is test code.
    pub(crate) is_test: bool,
    test_lines: Vec<RangeInclusive<usize>>,
    /// Names of the modules that are test code and are in a file of their own.
    test_modules: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The lines from `fn` to the closing brace.
    pub(crate) lines: RangeInclusive<usize>,
}

impl RustFile {
    /// Parses `text`.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let at = |line: usize, error: String| format!("{path}:{line}: is not Rust: {error}");
        let stream: TokenStream = text
            .parse()
            .map_err(|error: proc_macro2::LexError| at(error.span().start().line, error.to_string()))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let tree = syn::parse_file(text).map_err(|error| at(error.span().start().line, error.to_string()))?;
        let mut file = Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            tokens,
            functions: Vec::new(),
            is_test: path.split('/').any(|part| part == "tests"),
            test_lines: Vec::new(),
            test_modules: Vec::new(),
        };
        file.visit_file(&tree);
        Ok(file)
    }

    /// Whether the line is test code.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// The number of lines that are not test code.
    pub(crate) fn code_lines(&self) -> usize {
        (1..=self.lines).filter(|line| !self.is_test_line(*line)).count()
    }

    /// Beginnings of the paths of files that are test code because of a `#[cfg(test)] mod name;` here.
    pub(crate) fn test_module_paths(&self) -> Vec<String> {
        let (dir, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = file.trim_end_matches(".rs");
        let dir =
            if ["mod", "lib", "main"].contains(&stem) { dir.to_owned() } else { format!("{dir}/{stem}") };
        self.test_modules
            .iter()
            .flat_map(|name| [format!("{dir}/{name}.rs"), format!("{dir}/{name}/")])
            .collect()
    }

    /// The first token of each place at which the tokens match `pattern`.
    pub(crate) fn find<'a>(&'a self, pattern: &'a [&'a str]) -> impl Iterator<Item = &'a Token> {
        let windows = self.tokens.windows(pattern.len());
        let matching =
            windows.filter(move |window| window.iter().zip(pattern).all(|(token, text)| token.text == *text));
        matching.filter_map(|window| window.first())
    }
}

impl<'ast> Visit<'ast> for RustFile {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_test_item(item) {
            let span = item.span();
            self.test_lines.push(span.start().line..=span.end().line);
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.test_modules.push(module.ident.to_string());
            }
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add_function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add_function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add_function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

impl RustFile {
    fn add_function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = signature.fn_token.span.start().line..=block.brace_token.span.close().end().line;
        self.functions.push(Function { name: signature.ident.to_string(), lines });
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether the item is test code.
pub(crate) fn is_test_item(item: &syn::Item) -> bool {
    attributes(item).iter().any(is_test_attribute)
}

/// Whether the attribute is `#[test]`, `#[tokio::test]`, `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    let path = attribute.path();
    if path.segments.last().is_some_and(|segment| segment.ident == "test") {
        return true;
    }
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let condition = list.tokens.to_string().replace(' ', "");
    path.is_ident("cfg") && (condition == "test" || condition.starts_with("all(test,"))
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let mut push = |text: String, line| tokens.push(Token { text, line });
        match tree {
            TokenTree::Ident(ident) => push(ident.to_string(), line),
            TokenTree::Punct(punct) => push(punct.as_char().to_string(), line),
            TokenTree::Literal(_) => push(String::new(), line),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                push(open.to_owned(), line);
                let end = group.span_close().end().line;
                flatten(group.stream(), tokens);
                tokens.push(Token { text: close.to_owned(), line: end });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
/// Doc with .unwrap() in it.
pub fn one() {
    call(\"panic!\");
}

impl S {
    fn two(&self) -> u8 { 2 }
}

trait T {
    fn none(&self);
    fn three(&self) {
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn four() {}
}

#[cfg(test)]
mod elsewhere;

#[tokio::test]
async fn five() {}
";

    fn parse(path: &str) -> RustFile {
        RustFile::parse(path, TEXT).expect("Rust")
    }

    #[test]
    fn functions_are_measured() {
        let functions: Vec<(String, usize, usize)> = parse("a/src/x.rs")
            .functions
            .into_iter()
            .map(|function| (function.name, *function.lines.start(), *function.lines.end()))
            .collect();
        let wanted = [("one", 2, 4), ("two", 7, 7), ("three", 12, 13), ("four", 19, 19), ("five", 26, 26)];
        assert_eq!(functions, wanted.map(|(name, from, to)| (name.to_owned(), from, to)));
    }

    #[test]
    fn test_code_is_recognised() {
        let file = parse("a/src/x.rs");
        let tests: Vec<usize> = (1..=file.lines).filter(|line| file.is_test_line(*line)).collect();
        assert_eq!(tests, [16, 17, 18, 19, 20, 22, 23, 25, 26]);
        assert_eq!(file.code_lines(), file.lines - 9);
        assert_eq!(parse("a/tests/x.rs").code_lines(), 0);
    }

    #[test]
    fn a_test_module_in_its_own_file_is_found() {
        assert_eq!(parse("a/src/x.rs").test_module_paths(), ["a/src/x/elsewhere.rs", "a/src/x/elsewhere/"]);
        assert_eq!(parse("a/src/lib.rs").test_module_paths(), ["a/src/elsewhere.rs", "a/src/elsewhere/"]);
    }

    #[test]
    fn texts_and_comments_are_no_tokens() {
        let file = parse("a/src/x.rs");
        assert_eq!(file.find(&["panic", "!"]).count() + file.find(&[".", "unwrap"]).count(), 0);
        assert_eq!(file.find(&["call", "("]).map(|token| token.line).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_syntax_error_is_reported_with_its_line() {
        let error = RustFile::parse("a.rs", "fn a() {}\nfn {").expect_err("not Rust");
        assert!(error.starts_with("a.rs:2: "), "{error}");
    }
}
