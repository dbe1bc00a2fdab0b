//! Text from strangers, made safe to look at: on a page or in a terminal it must not hide, reorder or end anything. Escapes
//! control, format and bidirectional characters visibly; HTML is the template's business.

/// The text with everything that does not print as itself written as `\u{…}`, cut after `longest` characters.
pub fn plain(text: &str, longest: usize) -> String {
    let mut out = String::with_capacity(text.len().min(longest));
    for (index, c) in text.chars().enumerate() {
        if index == longest {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// At most this many bytes of a text, cut between characters.
pub fn cut(text: &str, longest: usize) -> &str {
    text.get(..text.floor_char_boundary(longest)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_hides_reorders_or_ends_is_left() {
        assert_eq!(plain("Grüße, “Ada” <b> & 'x' \"y\"", 100), "Grüße, “Ada” <b> & 'x' \"y\"");
        assert_eq!(plain("a\u{202e}b\u{2066}c\u{200f}", 100), "a\\u{202e}b\\u{2066}c\\u{200f}");
        assert_eq!(plain("a\r\n\t\0\u{1b}[2K\u{85}\u{2028}", 100), "a\\r\\n\\t\\0\\u{1b}[2K\\u{85}\\u{2028}");
        assert_eq!(plain("a\u{200b}\u{feff}\u{e0041}\\", 100), "a\\u{200b}\\u{feff}\\u{e0041}\\\\");
        assert_eq!(plain("äöü", 2), "äö…");
        assert_eq!(plain("e\u{301}", 9), "e\\u{301}", "a mark that would join what stands before it");
    }

    #[test]
    fn cuts_keep_characters_whole() {
        assert_eq!((cut("äö", 3), cut("äö", 4), cut("äö", 9), cut("", 0)), ("ä", "äö", "äö", ""));
    }
}
