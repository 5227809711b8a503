//! Rust source as a tree of the few kinds of tokens that say who names whom.
//!
//! Comments are gone, `::` is one token, and lifetimes are none. Code under `#[cfg(test)]` is left
//! out: a test may use whatever it wants.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A token, with the line that it is on where somebody asks for it.
#[derive(Debug, PartialEq)]
pub(super) enum Token {
    /// An identifier or a keyword.
    Name(String, usize),
    /// `::`
    Below,
    /// A string literal, without its quotes and with its escapes.
    Text(String, usize),
    /// `{ … }`
    Braces(Vec<Self>),
    /// `( … )`, `[ … ]`, or what a macro made.
    Group(Vec<Self>),
    /// Whatever else stands for itself.
    Sign(char),
}

impl Token {
    /// The name that this is.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name, _) => Some(name),
            _ => None,
        }
    }
}

/// The tokens of a file.
pub(super) fn read(text: &str) -> Result<Vec<Token>> {
    let stream = text.parse::<TokenStream>().map_err(|error| anyhow!("{error}"))?;
    Ok(without_tests(tree(stream)))
}

fn tree(stream: TokenStream) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut stream = stream.into_iter().peekable();
    while let Some(token) = stream.next() {
        let token = match token {
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                let name = name.strip_prefix("r#").unwrap_or(&name).to_owned();
                Token::Name(name, ident.span().start().line)
            }
            TokenTree::Group(group) => {
                let inner = without_tests(tree(group.stream()));
                match group.delimiter() {
                    Delimiter::Brace => Token::Braces(inner),
                    _ => Token::Group(inner),
                }
            }
            TokenTree::Literal(literal) => {
                let line = literal.span().start().line;
                let text = literal.to_string();
                let Some((begin, end)) = text.find('"').zip(text.rfind('"')) else { continue };
                Token::Text(text[(begin + 1).min(end)..end].to_owned(), line)
            }
            TokenTree::Punct(punct) => match punct.as_char() {
                // A lifetime.
                '\'' => {
                    stream.next();
                    continue;
                }
                ':' => {
                    let is_colon = |next: &TokenTree| matches!(next, TokenTree::Punct(p) if p.as_char() == ':');
                    let joint = punct.spacing() == proc_macro2::Spacing::Joint;
                    match joint && stream.next_if(is_colon).is_some() {
                        true => Token::Below,
                        false => Token::Sign(':'),
                    }
                }
                sign => Token::Sign(sign),
            },
        };
        tokens.push(token);
    }
    tokens
}

/// Without items that have the attribute `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        let of_test = matches!(&token, Token::Group(inner) if is_cfg_test(inner))
            && kept.last() == Some(&Token::Sign('#'));
        if !of_test {
            kept.push(token);
            continue;
        }
        kept.pop();
        // The item ends with `;`, or with its body; the braces of a `use` are none.
        let mut is_use = false;
        for token in tokens.by_ref() {
            is_use |= token.name() == Some("use");
            match token {
                Token::Sign(';') => break,
                Token::Braces(_) if !is_use => break,
                _ => {}
            }
        }
    }
    kept
}

fn is_cfg_test(attribute: &[Token]) -> bool {
    match attribute {
        [cfg, Token::Group(inner)] if cfg.name() == Some("cfg") => {
            matches!(&inner[..], [test] if test.name() == Some("test"))
        }
        _ => false,
    }
}
