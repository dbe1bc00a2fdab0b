//! Runs `../vectors.json` through this verifier: `cargo test`.

use crate::identity::Refused;
use crate::verify::Verifier;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

#[test]
fn every_vector_gets_its_verdict() {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let bytes = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
    let requests = vectors["requests"].as_array().unwrap();
    assert!(!requests.is_empty());
    for vector in requests {
        let verifier = Verifier {
            key_id: text(&vectors["key_id"]),
            key: bytes(vector.get("key_base64").unwrap_or(&vectors["key_base64"])),
            audience: text(&vectors["audience"]),
            mapped: vectors["mapped"].as_array().unwrap().iter().map(text).collect(),
        };
        let mut headers = HeaderMap::new();
        for header in vector["headers"].as_array().unwrap() {
            let value: Vec<u8> = text(&header[1]).chars().map(|c| c as u8).collect(); // one byte a character
            headers.append(HeaderName::from_bytes(text(&header[0]).as_bytes()).unwrap(), HeaderValue::from_bytes(&value).unwrap());
        }
        let (method, path, now) = (text(&vector["method"]), text(&vector["path"]), vector["now"].as_u64().unwrap());
        let who = verifier.head(&method, &path, vector["query"].as_str(), &headers, now);
        let told = match who.and_then(|who| who.check_body(&bytes(&vector["body_base64"])).map(|()| who)) {
            Ok(who) => json!({
                "level": who.level,
                "tenant": who.told["x-identity-tenant"],
                "subject": who.subject,
                "claimed_subject": who.told.get("x-identity-claimed-subject"),
                "claims": who.claims,
            }),
            Err(Refused(why)) => json!(why),
        };
        assert_eq!(Some(&told), vector.get("accepted").or(vector.get("refused")), "{}", vector["name"]);
    }
    println!("{} vectors", requests.len());
}
