//! What an administrator writes to say whose tokens are taken: whatever it is, it is taken or refused in words, and what is
//! taken judges any claims.

use serde_json::{Value, json};
use server::authn::User;
use server::authn::configuration::Configuration;
use server::authn::expression::{About, Expression, Subject, texts};

/// An expression about claims, and about a user: it compiles or is told why not, and what compiles is evaluated or told why not.
pub fn expressions(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let claims = json!({
        "sub": "ann", "email": "ann@example.com", "email_verified": true, "exp": 1.5, "a.b/c": "d", "none": null,
        "groups": ["dev", "ops"], "nested": {"list": [[1], [2, {"x": "y"}]]},
    });
    let mut user = User::new("ann", ["dev", "ops"]);
    user.extra.insert("example.com/a".into(), vec!["b".into()]);
    for (about, subject) in [(About::Claims, Subject::claims(&claims)), (About::User, Subject::user(&user))] {
        match Expression::compile(text, about) {
            Err(why) => assert!(!why.is_empty()),
            Ok(expression) => match expression.evaluate(&subject) {
                Err(why) => assert!(why.starts_with("expression '"), "{why}"),
                Ok(value) => drop(texts(&value)),
            },
        }
        if Expression::compile_condition(text, about).is_ok() {
            assert!(Expression::compile(text, about).is_ok(), "a condition is an expression");
        }
    }
}

/// The file of `--authentication-config`.
pub fn configurations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let compiled = Configuration::parse(text)
        .and_then(|configuration| configuration.compile(&["https://own.example".to_string()], &["RS256".to_string()]));
    let trusted = match compiled {
        Err(why) => return assert!(!why.is_empty()),
        Ok(trusted) => trusted,
    };
    for one in trusted {
        assert!(one.issuer.url.to_ascii_lowercase().starts_with("https://"), "{}", one.issuer.url);
        assert!(!one.issuer.audiences.is_empty());
        for claims in [json!({}), json!({"sub": "ann", "groups": ["dev"], "email": "a@b.c"}), Value::Null] {
            if let Ok(user) = one.rules.user(&claims) {
                assert!(!user.name.is_empty(), "nobody is let in without a name");
            }
        }
    }
}
