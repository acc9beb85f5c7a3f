//! Tokens of every good and bad sort, signed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::keys::{Keys, public_der, public_pem};
use super::{Defect, KeyId, Scopes, TokenSpec};

pub(super) fn make_token(keys: &Keys, url: &str, spec: TokenSpec) -> String {
    let key = keys.of(spec.signing);
    let mut header = Header::new(
        key.public
            .common
            .key_algorithm
            .and_then(|a| a.try_into().ok())
            .unwrap_or_default(),
    );
    header.kid = match &spec.key_id {
        KeyId::Own => Some(key.id.clone()),
        KeyId::Absent => None,
        KeyId::Text(text) => Some(text.clone()),
    };
    let claims = claims(url, &spec);
    let sign = |header: &Header, key: &EncodingKey| {
        jsonwebtoken::encode(header, &claims, key).expect("the test keys fit their algorithms")
    };
    let secret = |secret: &[u8]| {
        let header = Header {
            alg: Algorithm::HS256,
            ..header.clone()
        };
        sign(&header, &EncodingKey::from_secret(secret))
    };
    let unsigned = |alg: &str| {
        let header = json!({"alg": alg, "typ": "JWT", "kid": header.kid});
        format!("{}.{}", encode(&header), encode(&claims))
    };
    match spec.defect {
        None => sign(&header, &key.private),
        Some(Defect::AlgNone) => format!("{}.", unsigned("none")),
        Some(Defect::AlgNoneSigned) => {
            let signed = sign(&header, &key.private);
            let signature = signed.rsplit('.').next().expect("a token has three parts");
            format!("{}.{signature}", unsigned("nOnE"))
        }
        Some(Defect::Hs256Pem) => secret(public_pem(&keys.rsa.public).as_bytes()),
        Some(Defect::Hs256Der) => secret(&public_der(&keys.rsa.public)),
        Some(Defect::Hs256Jwk) => secret(json!(keys.rsa.public).to_string().as_bytes()),
        Some(Defect::Rs512) => sign(
            &Header {
                alg: Algorithm::RS512,
                ..header.clone()
            },
            &keys.rsa.private,
        ),
        Some(Defect::Ps256) => sign(
            &Header {
                alg: Algorithm::PS256,
                ..header.clone()
            },
            &keys.rsa.private,
        ),
        Some(Defect::TamperedPayload) => {
            let signed = sign(&header, &key.private);
            let mut parts = signed.split('.');
            let (head, _, signature) = (parts.next(), parts.next(), parts.next());
            let mut changed = claims.clone();
            changed["sub"] = json!("somebody else");
            let part = "a token has three parts";
            format!(
                "{}.{}.{}",
                head.expect(part),
                encode(&changed),
                signature.expect(part)
            )
        }
        Some(Defect::ForeignKey) => sign(&header, &Keys::make(keys.generation + 1).of(spec.signing).private),
        Some(Defect::NoSignature) => {
            let signed = sign(&header, &key.private);
            let (message, _) = signed.rsplit_once('.').expect("a token has three parts");
            format!("{message}.")
        }
        Some(Defect::Critical) => {
            let header = Header {
                crit: Some(vec!["exp".to_owned()]),
                ..header.clone()
            };
            sign(&header, &key.private)
        }
    }
}

fn claims(url: &str, spec: &TokenSpec) -> Value {
    let now = chrono::Utc::now().timestamp();
    let mut claims = json!({
        "iss": spec.issuer.as_deref().unwrap_or(url),
        "iat": now,
        "preferred_username": "demo",
        "name": "Demo User",
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims[name] = value;
        }
    };
    put("sub", spec.subject.as_ref().map(|text| json!(text)));
    put("aud", (!spec.audience.is_null()).then(|| spec.audience.clone()));
    put("exp", spec.expires_in.map(|seconds| json!(now + seconds)));
    put("nbf", spec.valid_in.map(|seconds| json!(now + seconds)));
    match &spec.scopes {
        Scopes::Scope(text) => put("scope", Some(json!(text))),
        Scopes::ScpArray(list) => put("scp", Some(json!(list))),
        Scopes::ScpText(text) => put("scp", Some(json!(text))),
        Scopes::Absent => {}
    }
    claims
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
