//! The public keys of an issuer, and which of them may verify a token.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::claims::Claims;

/// Keys looked at in a set: issuers publish two or three while they rotate.
const KEYS: usize = 100;
/// Shortest RSA modulus believed, in bytes (2,048 bits, RFC 7518 section 3.3).
const RSA_BYTES: usize = 256;

/// Tokens remembered as verified, at most a few hundred bytes each: a household's browsers and scripts have a few dozen.
const VERIFIED: usize = 500;

/// The usable keys of one issuer, and what the tokens they have verified say. Another fetch makes another `Keys`, so what
/// a key has verified is forgotten with it.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
    verified: Mutex<HashMap<[u8; 32], Claims>>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm this key serves.
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why no key fits a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// No key has the id (or, without an id, the type): perhaps it is new.
    Unknown,
    /// The key with the id is of another type than the token's algorithm needs.
    Mismatch,
    /// The token names no key and several could be meant.
    Ambiguous,
}

impl Keys {
    /// Reads a JWK set; keys that cannot be used here are passed over. None when no key is left.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(bytes)?;
        let keys: Vec<_> = set.keys.into_iter().take(KEYS).filter_map(usable).collect();
        Ok((!keys.is_empty()).then(|| Self {
            keys,
            verified: Mutex::default(),
        }))
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// What this token says, when these keys have verified it before: the same bytes under the same keys have the same
    /// signature, issuer and audience, and checking them costs more than all else of a request. That it has not expired
    /// since is the caller's to check.
    pub(super) fn verified(&self, token: &str) -> Option<Claims> {
        self.remembered().get(&digest(token)).cloned()
    }

    /// Remembers a token that passed every check.
    pub(super) fn remember(&self, token: &str, claims: Claims) {
        let mut remembered = self.remembered();
        if remembered.len() >= VERIFIED {
            remembered.clear();
        }
        remembered.insert(digest(token), claims);
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<[u8; 32], Claims>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key for a token with this header.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, NoKey> {
        let fits = |key: &&Key| key.algorithm == algorithm;
        match id {
            Some(id) => {
                let mut named = self
                    .keys
                    .iter()
                    .filter(|key| key.id.as_deref() == Some(id))
                    .peekable();
                if named.peek().is_none() {
                    return Err(NoKey::Unknown);
                }
                named.find(fits).map(|key| &key.key).ok_or(NoKey::Mismatch)
            }
            None => {
                let mut fitting = self.keys.iter().filter(fits);
                match (fitting.next(), fitting.next()) {
                    (Some(key), None) => Ok(&key.key),
                    (Some(_), Some(_)) => Err(NoKey::Ambiguous),
                    (None, _) => Err(NoKey::Unknown),
                }
            }
        }
    }
}

/// The token itself is not kept.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn usable(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    // What the issuer says of a key binds us: a key for encryption or for another algorithm verifies nothing.
    if jwk
        .common
        .key_algorithm
        .is_some_and(|algorithm| algorithm != named)
        || jwk
            .common
            .public_key_use
            .as_ref()
            .is_some_and(|usage| *usage != PublicKeyUse::Signature)
        || jwk
            .common
            .key_operations
            .as_ref()
            .is_some_and(|ops| !ops.contains(&KeyOperations::Verify))
    {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    if let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind() {
        let leading_zeros = n.iter().take_while(|byte| **byte == 0).count();
        if n.len() - leading_zeros < RSA_BYTES {
            return None;
        }
    }
    Some(Key {
        id: jwk.common.key_id,
        algorithm,
        key,
    })
}
