//! The issuer's keys, and their forms: DER and PEM by hand, because a test key needs no library.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::Signing;

/// TEST KEYS, PKCS#1: known to everyone, trusted by nothing real.
const TEST_RSA_KEYS: [&str; 2] = [
    "\
     MIIEowIBAAKCAQEAtAgaR6Spqr2SW3geLLfavuyx59BJ5XULK7OTOKk0lWgmy1unJq37eVax6nG8tkLzVo/xE06O8p3YVIXGzs/T\
     sCCzaDiDfn9UDN/SJTLZEa06/lHaCbpUFIoS5YSuKSKPAv00V27e1Z3Nes4rvqMdkPeqjcLjf6ItvsJSFt2x7PggTEC6o9sOodWq\
     jAwHO+UHMnpRC6Qcw3rsBWH2AvhcOhs9wbWRHhS2cBKPOYbPnrPjcui7MF0o2/0SzUevu3rJp/J0hwNmauB+vPFbtcrsBWtqQIJ7\
     AZpt1H8g9r08kaFnwWo1JtpQNlibXAjSmPVKtuDVCDH8WzskPjszChwdsQIDAQABAoIBACJej6HQykFZ2piSyHPyD5U2e8pNJeZj\
     32OS7064Yt0JGqrlDvaf7WvfRK0E1KmZA3qplTUB4OFph/Su62LtIzUzMPz7GQNrzIB+tFA8slshDquhtbX4t/eJ2oyttVAOFG5W\
     J4lvlaQDcch5lrlYy5qy5YEVzTe/HuuVjnVmEoMyEw0n+bG4GBhIeoxkjHzSCpFXsMTI1PHHJ2xpe5PwhxBEaXu16CLsyInCb0NY\
     3ZDQS892m+lVMrIPfP+HiUjjmqRRm3Qh0G3939JnlI7h35m2hKYAg7xjXjYgsqQuQOS2yA8d09GyloWeEfAZD6Oav/+BllWiSv2M\
     daJfS25xywkCgYEA7stCbP18z9ZdILTPGE+fFGnWD8C5vFeqNr/QNixwnsB4kGGzaNUGm8AQUKyU/J4AlMS3OpYvPKCp8vhLYab9\
     SWOMQRV99XeDvmBy9mmnTIAZvrq2Y+zdNLbcP8MpblUMgl0PwTLO1V1KfA0cMPPDVpHGLoCXc4jDIugtZ4Ca/KUCgYEAwQDtI7NT\
     C+5LVTo8yEOkUU55DynMDGphhzZZH46WKkq37miLAT0Y4LhbhBejWOBlIgTEKQ9wrUHWe+BPZDM5prHhwqqxzL5SGu1PSNtuH2Qg\
     6fMEAXSeO4z84gW8ex0hFIlhUajsbPC3dTYLJ5dLRbVK0cJ3xLR745wIVgDUUx0CgYA1P5ICZ8wrNGvz3R3JGAgrLyaSwLEqNIo6\
     Ry+QxPwgCl9YItE08TvWA1AgDTvz0O/kPLF3GQJTjKgZDBETJ3+Xm+EsqjQ6RnpUO4GnPQwXXQFgrJX7VlhFZvlaJpTYi5KMh1/5\
     /vBsV69CVlIRAGpwpXUB7Z7YHokVAZ0OVXk6GQKBgFfeYRho0v1Sjw+NRRDz4sJ1lJ33rINWh3J0pty8INe+TsEG7Yox07qzlE6u\
     KFsVRlXXj6sV8XmfyNN7CwoWXD/tKlhjODF70Iub0QXdiORXxLheQEudWVDJXnRUojv2xhHAfgMcgg8TBKMjaK6srcNdx2N6QubW\
     OLUmW5E0LXZtAoGBANzrAcoZDCiTMWLfg8JQLkbOgRumAinnGbt8o4Wc00ogGsDkNCK6ImpKtMHU20qlEWQlkmbaDhBvZolPa4IV\
     AW/+lvV+wxrNPW5tBx1ZbWFBWRNo0CjA7cfyXiHQBREYFCRSjAsfswc31nUUvsK/tD27oYVbB/d5GPHY6P9pzmv9",
    "\
     MIIEowIBAAKCAQEA0tSFoaU35gzCt1OjYjRXC3Tf2E7hZZQoGlTe4e46eImYP8bXYnxdSMe9RSVH0Y4J+seuodA7Mzqn2wqig/pT\
     X7Z+qjFY3KiNT42/Qx/1OfdVmCSvtT6W3VHW0siuH5kMfYcEMhXQbJ6l7eyA7uEfO6kPRpC2Ybc01Mpo/3Db6HxQ9hnbD85aN9ap\
     g7Qwt9vsiTOBH7b0BLebFnTSjEBWX40s6OUWiJvLkz2Dn/5XAqXMLNXfErZbl0R5JhxyR2P5szj3trVk/dSUANmjpthGAgUE+WdH\
     JjYEehnhx/fNfz9+Rbw0xr2A0tRlLp+9Gtlcv+loqrt0iPBnbd34m2UgcQIDAQABAoIBAC7TE6DcnIckA2ULFuj7Pe/l88dLcaUJ\
     XETI372nFuZpjN5xT6nofCFrdz5xsrs4hD/l9IOsx1Ev8FLmUETmpnjGA+jRz+4mI0htb3K9mM3YgHKrhzjGX2RlRkSHXKDY8Zy5\
     jXWAQcu2Cp1GnzYu2qx59lISVudp9LpkACDnlHfUKM9/X+bF3AWap9fkrAdYPpB5fxEfKRBfWOhoYwcnylkuVUpS/PAeLcUeNs7t\
     IWwpHpYPm5TJM/LANqZ9BeYPqDWdGr4aof+2j35p5UJidtVDHXzkc7VXNbzkmdwA5J0JAYfiiLk/Gm40F4d2LbgWjgRNgU2ndDnR\
     8YhFSnjgZjcCgYEA/3r20V/YUd2jP2gpD4HUoFyAfsrAHi58jLH+8NPQubx+GJHuOXKy+ZqUEjIkWE/nKq0RBz9lkMGt+7Aheqa6\
     G6dJJLATsaLIw1oU5ju9atE2+/kTRA+ge6DLQBk6iHvjXtj118/VeU3WKsmDusjvbxqD6vHtrVYadTOJZj4/cYMCgYEA00JOqFGC\
     e+n6eYgB62IUzn8q6d+4NeIu5ejUjKozqeGQHP17MKTDxfrg1BpxNYpzPHZmZM/CAo/v5lDrcG/kNdcmb+foaSe7iBockhO0+YjV\
     O6U3IYuUeBg4w/NfGicdJfXw/oNE7yDotIzqdf2XwYnKu9Shz4NHkztqRVf8x/sCgYBMrMXovsA4ibFV9VflbIy4+CokY4tXQ5Jj\
     04P1GU0agWTC0QFTQoZOfUMVVvErhAeX+ksTBsbftBEYaZsSqXlPlVxRY3r1pCpm3uFI3AMUTOgYpX9PvPToRbDacvfrQGtT6v+V\
     nq2t81tkigg8BdQ+XxHacHNpw167cBU7l1EJKwKBgEpJJamQR+bUxsvXZH1lltVp6CgnD/p6l20m6x6vds1E0M0w4RGgzmqeplJP\
     HgHqtkzLgYPvflQyUvRU/gUig0ffaNeu342ieBIKxIMlRNz+HaUEmpdEIqf8NHHK8WUb3ecMTXrho+rGUq2yY3ur+aIHlu9nfKKg\
     khmWqe7KWsvjAoGBAJt85RaGTSAQgUY1sUazA4LLQFIN+DoSM5yZccVOCRfPF5nwP4Bked0HtKVsHBSYB1zrArHzXYQWCXFsPRLK\
     aHx75anu+OcLZxHD4oyMkCtWp8rtmhJpiAv4ikSBCqct6LLGOCjhDoWds5lGbdGXiuoOG0jRNWRYUqitrgwK7BH2",
];

#[derive(Clone)]
pub(super) struct Keys {
    pub(super) generation: usize,
    pub(super) rsa: Key,
    pub(super) ec: Key,
    pub(super) ed: Key,
}

#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) private: EncodingKey,
    pub(super) public: Jwk,
}

impl Keys {
    pub(super) fn make(generation: usize) -> Self {
        let rsa = STANDARD
            .decode(TEST_RSA_KEYS[generation % 2])
            .expect("the test keys are base64");
        Self {
            generation,
            rsa: Key::new(
                format!("rsa-{generation}"),
                EncodingKey::from_rsa_der(&rsa),
                Algorithm::RS256,
            ),
            ec: Key::new(
                format!("ec-{generation}"),
                EncodingKey::from_ec_der(&ec_der()),
                Algorithm::ES256,
            ),
            ed: Key::new(
                format!("ed-{generation}"),
                EncodingKey::from_ed_der(&ed_der()),
                Algorithm::EdDSA,
            ),
        }
    }

    pub(super) fn of(&self, signing: Signing) -> &Key {
        match signing {
            Signing::Rs256 => &self.rsa,
            Signing::Es256 => &self.ec,
            Signing::EdDsa => &self.ed,
        }
    }

    pub(super) fn set(&self) -> Value {
        json!({"keys": [self.rsa.public, self.ec.public, self.ed.public]})
    }
}

impl Key {
    fn new(id: String, private: EncodingKey, algorithm: Algorithm) -> Self {
        let mut public = Jwk::from_encoding_key(&private, algorithm).expect("the test keys are well formed");
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        Self { id, private, public }
    }
}

/// A random P-256 key: PKCS#8 around the scalar alone (RFC 5915 leaves the public key optional).
fn ec_der() -> Vec<u8> {
    let mut scalar: [u8; 32] = rand::random();
    // Below the order of the group, and not zero.
    scalar[0] = 0x7f;
    let private = der(0x30, &[der(0x02, &[1]), der(0x04, &scalar)].concat());
    let ec_public_key = [0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let p256 = [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let algorithm = der(0x30, &[&ec_public_key[..], &p256[..]].concat());
    der(0x30, &[der(0x02, &[0]), algorithm, der(0x04, &private)].concat())
}

/// A random Ed25519 key: PKCS#8 of RFC 8410.
fn ed_der() -> Vec<u8> {
    let seed: [u8; 32] = rand::random();
    let algorithm = der(0x30, &[0x06, 3, 0x2b, 0x65, 0x70]);
    der(
        0x30,
        &[der(0x02, &[0]), algorithm, der(0x04, &der(0x04, &seed))].concat(),
    )
}

/// One DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// The public RSA key as SubjectPublicKeyInfo.
pub(super) fn public_der(jwk: &Jwk) -> Vec<u8> {
    let AlgorithmParameters::RSA(rsa) = &jwk.algorithm else {
        unreachable!("asked for the RSA key only")
    };
    let number = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).expect("a JWK is base64");
        // DER numbers are signed: a leading zero keeps them positive.
        der(
            0x02,
            &if bytes[0] >= 0x80 {
                [&[0][..], &bytes[..]].concat()
            } else {
                bytes
            },
        )
    };
    let key = der(0x30, &[number(&rsa.n), number(&rsa.e)].concat());
    let algorithm = der(
        0x30,
        &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0],
    );
    der(
        0x30,
        &[algorithm, der(0x03, &[&[0][..], &key[..]].concat())].concat(),
    )
}

pub(super) fn public_pem(jwk: &Jwk) -> String {
    let text = STANDARD.encode(public_der(jwk));
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}
