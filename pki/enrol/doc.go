// Package enrol is the enrolment protocol: how a machine that has just booted shows the engine a key of its own making,
// and how the engine decides what that key is worth. It holds the part that both sides share and that needs no I/O:
// message types, what is signed, its verification, and the decision with the facts it yields. The agent imports it, so
// it uses the standard library alone.
//
// # Exchange
//
// The machine opens TLS 1.3, checks the engine's chain against the pin from its command line, and posts a [Request].
// What it signs binds the request to this very connection:
//
//	message   = "joist-enrol-1" ‖ exporter ‖ boot id
//	exporter  = 32 octets exported with the label "EXPORTER-joist-enrol-1" and no context (RFC 8446 § 7.5, RFC 5705)
//	boot id   = 16 octets
//	signature = ECDSA P-256 with SHA-256 over message, ASN.1, by the key of the CSR
//	voucher   = HMAC-SHA-256 under the voucher secret over message ‖ SPKI (the CSR's public key, DER)
//
// Every part before the last has a fixed length, so no two different inputs give one message. A request that is
// recorded and sent again runs over another connection, whose exporter differs, and fails.
//
// # Decision
//
// [Decide] is a pure function of what the site knows of a machine, the proven request and the time. The facts it yields
// are [Event] values; the caller makes them durable in the site's journal before it answers, and [Fold] turns them back
// into a [Machine]. Decisions about one machine are taken one after another, each on the state that includes the
// previous one's events.
package enrol
