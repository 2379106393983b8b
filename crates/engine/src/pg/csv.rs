//! Lines as `psql --csv` writes them: fields apart by commas, quoted only where
//! it is needed, and `\n` at the end.

/// What makes quotes necessary.
const SPECIAL: [u8; 4] = [b',', b'"', b'\r', b'\n'];
/// COPY of old servers takes such a line for the end of the data.
const END_OF_DATA: &str = "\\.";

/// Adds a line of `fields`. NULL and an empty text are the same.
pub(super) fn add_line<'a>(fields: impl Iterator<Item = Option<&'a str>>, to: &mut Vec<u8>) {
    for (number, field) in fields.enumerate() {
        if number > 0 {
            to.push(b',');
        }
        add_field(field.unwrap_or_default(), to);
    }
    to.push(b'\n');
}

fn add_field(field: &str, to: &mut Vec<u8>) {
    if field != END_OF_DATA && !field.bytes().any(|byte| SPECIAL.contains(&byte)) {
        return to.extend_from_slice(field.as_bytes());
    }
    to.push(b'"');
    to.extend_from_slice(field.replace('"', "\"\"").as_bytes());
    to.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows D10.
    #[test]
    fn a_field_is_quoted_only_where_psql_does() {
        let line = |fields: &[Option<&str>]| {
            let mut line = Vec::new();
            add_line(fields.iter().copied(), &mut line);
            String::from_utf8(line).unwrap()
        };
        for (field, written) in [
            ("", ""),
            (" a b ", " a b "),
            ("a;b\t'c'", "a;b\t'c'"),
            ("\\", "\\"),
            ("\\. ", "\\. "),
            ("\\.", "\"\\.\""),
            (",", "\",\""),
            ("\"", "\"\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("\r", "\"\r\""),
            ("Größe \u{fffe}", "Größe \u{fffe}"),
        ] {
            assert_eq!(line(&[Some(field)]), format!("{written}\n"), "{field:?}");
        }
        assert_eq!(line(&[None, Some(""), Some("t"), None]), ",,t,\n");
        assert_eq!(line(&[]), "\n");
    }
}
