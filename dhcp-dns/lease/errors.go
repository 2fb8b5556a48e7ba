package lease

import (
	"fmt"
	"net/netip"
	"time"
)

// ExhaustedError reports that no address of the pool is free.
type ExhaustedError struct {
	Subnet netip.Prefix
	Usage  Usage
	In     time.Duration // until the next address comes free; zero if none ever will
}

// Error implements error.
func (e *ExhaustedError) Error() string {
	u := e.Usage
	next := "none of them will come free by itself"
	if e.In > 0 {
		next = fmt.Sprintf("the next comes free in %v", e.In.Round(time.Second))
	}
	return fmt.Sprintf("cannot give an address in %v: all %d of the pool are taken (%d leased, %d offered, %d reserved, %d quarantined), and %s; "+
		"widen the pool, remove reservations of machines that are gone, or look for a client that asks under many hardware addresses",
		e.Subnet, u.Size, u.Leased, u.Held, u.Reserved, u.Quarantined, next)
}

// Reason says why a client may not have an address.
type Reason string

// The reasons for which an address is refused.
const (
	WrongSubnet Reason = "it lies outside the subnet"
	OutsidePool Reason = "it is not in the pool"
	Taken       Reason = "another client has it"
	Reserved    Reason = "it is reserved for another client"
	Elsewhere   Reason = "another address is reserved for this client"
	Quarantined Reason = "it is quarantined: a client found somebody else using it"
)

// RefusedError reports that a client may not have an address.
type RefusedError struct {
	MAC     MAC
	Address netip.Addr
	Reason  Reason
	Holder  MAC // who has it, for Taken and Reserved
}

// Error implements error.
func (e *RefusedError) Error() string {
	by := ""
	if e.Holder != "" {
		by = " (" + string(e.Holder) + ")"
	}
	return fmt.Sprintf("cannot give %v to %s: %s%s", e.Address, e.MAC, e.Reason, by)
}
