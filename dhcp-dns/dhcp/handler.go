package dhcp

import (
	"context"
	"net/netip"
	"time"
)

// Handler decides what clients get; the server speaks the protocol. It is called from many goroutines at once. An error
// means that the client gets no answer (it will ask again); the server logs it.
type Handler interface {
	// Offer proposes an address in answer to a DISCOVER.
	Offer(ctx context.Context, q Query) (Answer, error)

	// Lease answers a REQUEST (q.Kind is Selecting, InitReboot, Renewing or Rebinding) with Give, Refuse or Silent. A lease
	// that it gives is durable when it returns: the acknowledgement follows at once.
	Lease(ctx context.Context, q Query) (Answer, error)

	// Configure answers a client that has an address already (Inform) or asks a boot server (BootServer) with options
	// only: Address and Lease of the answer are ignored.
	Configure(ctx context.Context, q Query) (Answer, error)

	// Decline learns that somebody else uses q.Address; Release that the client gives q.Address up. Neither has an answer.
	Decline(ctx context.Context, q Query) error
	Release(ctx context.Context, q Query) error
}

// Kind is what a client asks for: its message type and, for a REQUEST, its state (RFC 2131 §4.3.2).
type Kind string

// The kinds of questions.
const (
	Discover   Kind = "discover"    // looks for servers
	Selecting  Kind = "selecting"   // takes our offer
	InitReboot Kind = "init-reboot" // has rebooted and would like its old address again
	Renewing   Kind = "renewing"    // asks this server, by unicast, to extend its lease
	Rebinding  Kind = "rebinding"   // asks any server to extend its lease
	Decline    Kind = "decline"     // somebody else uses the address
	Release    Kind = "release"     // gives the address up
	Inform     Kind = "inform"      // has an address, wants options
	BootServer Kind = "boot-server" // PXE firmware asking on port 4011 (PXE 2.1 §2.2.5)
)

// Query is one question of a client.
type Query struct {
	Kind     Kind
	Firmware Firmware
	Address  netip.Addr // the address in question: requested in a DISCOVER (may be invalid), else the one the client has or wants
	Link     netip.Addr // an address on the client's network as the relay names it; invalid for a client on our own link
	Via      netip.Addr // the relay (giaddr); invalid for a client on our own link
}

// Verdict is the kind of an answer.
type Verdict string

// The verdicts. An empty one is Silent.
const (
	Silent Verdict = ""       // no answer
	Give   Verdict = "give"   // OFFER or ACK
	Refuse Verdict = "refuse" // NAK: the client must begin again; means Silent where the protocol has no NAK
)

// Answer is what a client gets.
type Answer struct {
	Verdict  Verdict
	Reason   string        // for Refuse: sent to the client as text
	Address  netip.Addr    // the client's address
	Lease    time.Duration // how long it lasts; rounded down to seconds
	Subnet   netip.Prefix
	Routers  []netip.Addr
	DNS      []netip.Addr
	Domain   string // DNS domain
	Hostname string
	Boot     Boot
}

// Boot is the boot part of an answer; the zero value means none.
type Boot struct {
	Filename   string     // path for TFTP, or a URL; up to 127 bytes also go into the BOOTP header's `file`
	NextServer netip.Addr // the TFTP server (siaddr); invalid means this server
}
