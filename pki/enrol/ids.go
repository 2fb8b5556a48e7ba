package enrol

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
)

// BootValidity is how long after its issue a boot id accepts its one key.
const BootValidity = 15 * time.Minute

// BootID is the 128-bit number that the boot script carries (`joist.boot`). It is public: it orders requests and
// limits them, and authenticates nothing. The zero value means none.
type BootID [16]byte

// NewBootID draws a boot id from random, which is crypto/rand.Reader outside tests.
func NewBootID(random io.Reader) (BootID, error) {
	var id BootID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return BootID{}, fmt.Errorf("cannot draw a boot id: %w", err)
	}
	return id, nil
}

// ParseBootID reads the 32 lower-case hexadecimal digits that String gives. It refuses the zero id.
func ParseBootID(text string) (BootID, error) {
	var id BootID
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return BootID{}, err
	}
	if id == (BootID{}) {
		return BootID{}, fmt.Errorf("cannot use boot id %q: it is zero", text)
	}
	return id, nil
}

// String gives 32 lower-case hexadecimal digits.
func (id BootID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id BootID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *BootID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) || strings.ToLower(string(text)) != string(text) {
		return fmt.Errorf("cannot read boot id: want %d lower-case hexadecimal digits, not %d characters", 2*len(id), len(text))
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("cannot read boot id: %w", err)
	}
	return nil
}

// KeyID names a public key: the SHA-256 of its SubjectPublicKeyInfo (DER), in lower-case hexadecimal. Empty means none.
type KeyID string

// IDOf gives the id of a public key by its SubjectPublicKeyInfo in DER (x509.Certificate.RawSubjectPublicKeyInfo).
func IDOf(spki []byte) KeyID {
	sum := sha256.Sum256(spki)
	return KeyID(hex.EncodeToString(sum[:]))
}

const (
	fingerprintAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's: no I, L, O or U
	fingerprintBytes    = 5                                  // 40 bits in 8 characters of 5
	fingerprintRounds   = 1 << 14
)

// Fingerprint gives the eight characters by which a person compares a key: 40 bits in Crockford's base 32 (digits and
// upper-case letters without I, L, O, U). They are PBKDF2-HMAC-SHA-256 of the SubjectPublicKeyInfo (DER) with the salt
// "joist-fingerprint-1" and 16,384 rounds, so that finding another key with the same characters costs about 2^54
// hashes instead of 2^40, while a machine waits for its person; one costs a few milliseconds.
func Fingerprint(spki []byte) string {
	sum, err := pbkdf2.Key(sha256.New, string(spki), []byte("joist-fingerprint-1"), fingerprintRounds, fingerprintBytes)
	if err != nil {
		panic("internal error: PBKDF2 with constant parameters: " + err.Error())
	}
	return base32.NewEncoding(fingerprintAlphabet).EncodeToString(sum)
}

// ParseFingerprint reads a fingerprint as a person types it: either case, with hyphens or spaces, O for 0, I and L
// for 1. It gives the form that Fingerprint has.
func ParseFingerprint(text string) (string, error) {
	clean := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(text))
	if len(clean) != 8 || strings.Trim(clean, fingerprintAlphabet) != "" {
		return "", fmt.Errorf("cannot read fingerprint %.40q: want eight digits and letters, as the machine's console shows", text)
	}
	return clean, nil
}

// Level is how far a key is trusted to belong to its machine. Levels are ordered and compare with <.
type Level int

// The levels, in order. The zero Level is none at all: the machine has not enrolled.
const (
	Claimed  Level = iota + 1 // somebody on the boot network used the machine's MAC and UUID
	Approved                  // a person confirmed this key's fingerprint
	Vouched                   // the machine proved a secret given to it out of band
	Attested                  // a TPM proved which hardware it is (no way leads here yet)
)

var levelNames = [...]string{"", "claimed", "approved", "vouched", "attested"}

// ParseLevel reads the name of a level, as packs state it.
func ParseLevel(text string) (Level, error) {
	for l := Claimed; l <= Attested; l++ {
		if levelNames[l] == text {
			return l, nil
		}
	}
	return 0, fmt.Errorf("cannot read trust level %.40q: want claimed, approved, vouched or attested", text)
}

// String gives the level's name; empty for none.
func (l Level) String() string {
	if l < 0 || int(l) >= len(levelNames) {
		return fmt.Sprintf("level(%d)", int(l))
	}
	return levelNames[l]
}

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Level) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*l = 0
		return nil
	}
	parsed, err := ParseLevel(string(text))
	*l = parsed
	return err
}

// spkiOf gives the DER form of a public key, which has to be ECDSA on P-256: the one kind of key that nodes make.
func spkiOf(public any) ([]byte, error) {
	key, ok := public.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("cannot use a key of type %T: want ECDSA on P-256", public)
	}
	return x509.MarshalPKIXPublicKey(key)
}
