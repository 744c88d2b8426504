//! Verifies signatures: a provider for `jsonwebtoken` on ring, which TLS has brought into the binary anyway.

use super::algorithm::Algorithm;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::signature as with_ring;
use std::sync::Once;

/// The provider. It signs nothing.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Returns whether a signature, in base64url, is one of `signed` by a key.
pub(super) fn is_signed(signed: &str, signature: &str, key: &DecodingKey, algorithm: Algorithm) -> bool {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Nothing else installs one.
        let _ = PROVIDER.install_default();
    });
    let algorithm = named(algorithm);
    jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, algorithm).unwrap_or(false)
}

fn named(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::Ps384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::Ps512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// Verifies signatures of one algorithm by one key.
struct WithRing {
    algorithm: jsonwebtoken::Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &jsonwebtoken::Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if algorithm.family() != key.family() || key.family() == AlgorithmFamily::Hmac {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(WithRing { algorithm: *algorithm, key: key.clone() }))
}

impl JwtVerifier for WithRing {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for WithRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        use jsonwebtoken::Algorithm as Named;
        let rsa = match self.algorithm {
            Named::RS256 => Some(&with_ring::RSA_PKCS1_2048_8192_SHA256),
            Named::RS384 => Some(&with_ring::RSA_PKCS1_2048_8192_SHA384),
            Named::RS512 => Some(&with_ring::RSA_PKCS1_2048_8192_SHA512),
            Named::PS256 => Some(&with_ring::RSA_PSS_2048_8192_SHA256),
            Named::PS384 => Some(&with_ring::RSA_PSS_2048_8192_SHA384),
            Named::PS512 => Some(&with_ring::RSA_PSS_2048_8192_SHA512),
            _ => None,
        };
        let verified = match (self.key.kind(), rsa) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Some(parameters)) => {
                with_ring::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (DecodingKeyKind::SecretOrDer(bytes), None) => {
                let algorithm: &dyn with_ring::VerificationAlgorithm = match self.algorithm {
                    Named::ES256 => &with_ring::ECDSA_P256_SHA256_FIXED,
                    Named::ES384 => &with_ring::ECDSA_P384_SHA384_FIXED,
                    Named::EdDSA => &with_ring::ED25519,
                    _ => return Err(signature::Error::new()),
                };
                with_ring::UnparsedPublicKey::new(algorithm, bytes).verify(message, signature)
            }
            _ => return Err(signature::Error::new()),
        };
        verified.map_err(|_| signature::Error::new())
    }
}
