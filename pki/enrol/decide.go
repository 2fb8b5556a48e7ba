package enrol

import (
	"fmt"
	"time"
)

// MaxSkew is how far a machine's clock may be from the engine's. Certificates are valid from five minutes before their
// issue, so that a machine within it finds its own valid.
const MaxSkew = 4 * time.Minute

// Outcome is how a request ended.
type Outcome string

// The outcomes of a request.
const (
	Accept     Outcome = "accept"     // the key is current from now on, at the decision's level: issue a certificate
	Same       Outcome = "same"       // the key was current already and nothing changed: the same certificate again
	Pending    Outcome = "pending"    // the key waits for a person
	Quarantine Outcome = "quarantine" // the machine is claimed twice; nobody is served until a person decides
	Refuse     Outcome = "refuse"     // this request is worth nothing; state is as before
)

// Reason says why, for programs.
type Reason string

// The reasons of outcomes.
const (
	UnknownBoot     Reason = "unknown-boot"    // refuse: the boot id was never given out, or is forgotten
	ExpiredBoot     Reason = "expired-boot"    // refuse: its 15 minutes have passed
	OtherMAC        Reason = "other-mac"       // refuse: the boot id was given to another MAC
	BadClock        Reason = "clock"           // refuse: the machine's clock is off by more than MaxSkew
	EndedKey        Reason = "ended-key"       // refuse: the key was replaced, or a person ended it
	OtherRoot       Reason = "other-root"      // refuse: the incarnation changed within one boot
	BadRequest      Reason = "bad-request"     // refuse: malformed
	BadSignature    Reason = "bad-signature"   // refuse: replayed, or not by this key
	BadVoucher      Reason = "bad-voucher"     // refuse: wrong voucher secret
	OtherKey        Reason = "other-key"       // quarantine: a second key for one boot id
	OwnerAnswers    Reason = "owner-answers"   // quarantine: another key asks while the current key's agent answers
	OlderKeyAsks    Reason = "older-key-asks"  // quarantine: a key asks again after a newer boot of its machine asked
	AwaitsApproval  Reason = "awaits-approval" // pending: a person has to compare the fingerprint
	VoucherProved   Reason = "voucher"         // accept
	PersonConfirmed Reason = "person"          // accept
	KnownKey        Reason = "known-key"       // accept: the current key itself, after another boot
	OrderedBoot     Reason = "ordered-boot"    // accept: the one claim of a boot that the engine ordered; trusts the boot network
)

// View is what the site knows when a request arrives.
type View struct {
	Machine Machine // the machine that the boot id was given to; zero if the boot id is unknown

	// Answers says that an agent holding the machine's current key answered a question put to it after the request had
	// arrived. An open connection is no answer: a machine that lost power leaves one behind.
	Answers bool
}

// Decision is what a request leads to.
type Decision struct {
	Outcome Outcome
	Reason  Reason
	Level   Level   // with accept and same: the key's; with pending: Claimed
	Message string  // one sentence for the console and for people
	Events  []Event // to be made durable, in order, before the answer; none if nothing changed
}

// Decide says what a proven request leads to. The last to ask never wins: a boot id takes one key, and a second key
// for it, or a new key while the old one's agent answers, takes both out of service until a person decides.
func Decide(v View, p Proven, now time.Time) Decision {
	m := v.Machine
	boot, known := m.Boots[p.Boot]
	key, seen := m.Keys[p.Key]
	switch {
	case !known:
		return refuse(UnknownBoot, "this boot id was not given out by the engine, or is forgotten; boot the machine again")
	case m.Quarantine != "":
		return Decision{Outcome: Quarantine, Reason: m.Quarantine, Message: quarantineMessage(m.Quarantine)}
	case boot.Key != p.Key && boot.Expired(now):
		return refuse(ExpiredBoot, fmt.Sprintf("this boot id was given out %s ago and is valid for %s; boot the machine again",
			now.Sub(boot.Issued).Round(time.Second), BootValidity))
	case seen && key.State == StateEnded:
		return refuseEnded(m.Name, p, key, now)
	case boot.Key != "" && boot.Key != p.Key:
		return quarantine(m, p, boot.Key, OtherKey, now)
	case m.Current != "" && m.Current != p.Key && v.Answers:
		return quarantine(m, p, m.Current, OwnerAnswers, now)
	}
	if rival := newer(m, p.Key, key); seen && key.Boot == p.Boot && rival != "" {
		return quarantine(m, p, rival, OlderKeyAsks, now)
	}
	if boot.MAC != "" && p.MAC != "" && boot.MAC != p.MAC {
		return refuse(OtherMAC, "this boot id was given to another network card; boot the machine again")
	}
	if skew := now.Sub(p.Time); skew > MaxSkew || skew < -MaxSkew {
		return refuse(BadClock, fmt.Sprintf("the machine's clock is off by %s; set it to the engine's", skew.Abs().Round(time.Second)))
	}
	if seen && key.Boot == p.Boot && key.Incarnation != p.Incarnation {
		return refuse(OtherRoot, "the incarnation changed within one boot; boot the machine again")
	}
	return admit(m, p, key, now)
}

// OrderValidity is for how long after the engine ordered a boot its first claim may be approved with it: as long as a machine's
// firmware may take.
const OrderValidity = 10 * time.Minute

// reapproved reports whether a key that nobody has confirmed, and that proves nothing, is approved all the same, because its machine
// was, because the engine itself had that boot anew just now, and because this is all that came of it: the one boot id given out
// since, to the network card and address of the boot that was confirmed, and the one key that asks. Whoever can answer
// for the machine on the boot network can have all that: it is spoofable.
func reapproved(m Machine, p Proven, now time.Time) bool {
	o := m.Ordered
	boot := m.Boots[p.Boot]
	switch {
	case !m.TrustBoot || o.Key == "" || o.Key != m.Current || m.Keys[o.Key].Level < Approved || o.Key == p.Key:
		return false
	case now.Before(o.At) || now.Sub(o.At) >= OrderValidity || !boot.Issued.After(o.At):
		return false
	case o.MAC == "" || boot.MAC != o.MAC || p.MAC != o.MAC || o.Address == "" || boot.Address != o.Address:
		return false
	}
	for id, other := range m.Boots {
		if id != p.Boot && id != m.Keys[o.Key].Boot && !other.Issued.Before(o.At) {
			return false
		}
	}
	for id, key := range m.Keys {
		if id != p.Key && id != o.Key && (key.State == StatePending || !key.Since.Before(o.At)) {
			return false
		}
	}
	return true
}

// admit decides about a request that nothing speaks against: by how far its key is trusted.
func admit(m Machine, p Proven, key Key, now time.Time) Decision {
	d := Decision{Outcome: Accept, Level: max(key.Level, Claimed), Reason: PersonConfirmed}
	if p.Vouched {
		d.Level, d.Reason = max(d.Level, Vouched), VoucherProved
	}
	if d.Level < Approved && reapproved(m, p, now) {
		d.Level, d.Reason = Approved, OrderedBoot
	}
	event := Event{
		Kind: Accepted, Machine: m.Name, Boot: p.Boot, Key: p.Key, Fingerprint: p.Fingerprint,
		Level: d.Level, Incarnation: p.Incarnation, Reason: d.Reason, At: now,
	}
	switch {
	case m.Current == p.Key && key.Boot == p.Boot && key.Level == d.Level:
		return Decision{Outcome: Same, Level: d.Level, Reason: KnownKey, Message: "enrolled, " + d.Level.String()}
	case m.Current == p.Key && key.Level == d.Level:
		d.Reason, event.Reason = KnownKey, KnownKey
	case d.Level < Approved:
		d.Outcome, d.Reason = Pending, AwaitsApproval
		d.Message = "waiting for a person to confirm the key " + p.Fingerprint
		if key.Boot != p.Boot {
			event.Kind, event.Reason = Asked, ""
			d.Events = []Event{event}
		}
		return d
	case m.Current != p.Key:
		event.Other = m.Current
	}
	d.Message = "enrolled, " + d.Level.String()
	d.Events = []Event{event}
	return d
}

// newer finds a live key that first asked after this one did; of several, the least id, so that the answer is one.
func newer(m Machine, id KeyID, key Key) KeyID {
	var found KeyID
	for other, k := range m.Keys {
		if other != id && k.live() && k.Since.After(key.Since) && (found == "" || other < found) {
			found = other
		}
	}
	return found
}

func refuse(reason Reason, message string) Decision {
	return Decision{Outcome: Refuse, Reason: reason, Message: message}
}

// refuseEnded refuses a key that had its time, and notes it the first time: somebody still runs with it.
func refuseEnded(machine string, p Proven, key Key, now time.Time) Decision {
	d := refuse(EndedKey, "this key was replaced or ended; boot the machine again")
	if !key.Returned {
		d.Events = []Event{{Kind: Returned, Machine: machine, Boot: p.Boot, Key: p.Key, Fingerprint: p.Fingerprint, At: now}}
	}
	return d
}

func quarantine(m Machine, p Proven, other KeyID, reason Reason, now time.Time) Decision {
	return Decision{
		Outcome: Quarantine, Reason: reason, Message: quarantineMessage(reason),
		Events: []Event{{
			Kind: Quarantined, Machine: m.Name, Boot: p.Boot, Key: p.Key, Fingerprint: p.Fingerprint, Other: other,
			Level: Claimed, Incarnation: p.Incarnation, Reason: reason, At: now,
		}},
	}
}

func quarantineMessage(reason Reason) string {
	why := map[Reason]string{
		OtherKey:     "two keys used one boot id",
		OwnerAnswers: "another key asked while this machine's agent was answering",
		OlderKeyAsks: "two machines ask under one name",
	}[reason]
	return "in quarantine (" + why + "): a person has to release it, naming the fingerprint on the right console"
}

// Reply gives the answer to send for a decision; the caller adds certificate and root for accept and same.
func (d Decision) Reply(machine, fingerprint string, now time.Time) Reply {
	r := Reply{
		Outcome: d.Outcome, Reason: d.Reason, Message: d.Message, Fingerprint: fingerprint, Level: d.Level,
		Node: machine, Now: now.UTC(),
	}
	switch {
	case d.Outcome == Pending:
		r.RetryAfter = 2
	case d.Outcome == Quarantine:
		r.RetryAfter = 10
	case d.Reason == BadClock:
		r.RetryAfter = 1
	}
	return r
}

// Refusal gives the answer to send for a request whose proofs failed.
func Refusal(err *ProofError, now time.Time) Reply {
	return Reply{Outcome: Refuse, Reason: err.Reason, Message: err.Error(), Now: now.UTC()}
}

// Word is what a person says about a machine's keys.
type Word struct {
	Fingerprint string // as typed
	By          string // who
	At          time.Time
}

// Approve yields the event by which a person confirms the waiting key with this fingerprint. The key is accepted when
// it next asks. Two waiting keys with one fingerprint are refused, as are keys that do not wait.
func Approve(m Machine, w Word) ([]Event, error) {
	if m.Quarantine != "" {
		return nil, fmt.Errorf("cannot approve a key of %s: it is %s", m.Name, quarantineMessage(m.Quarantine))
	}
	id, key, err := find(m, w.Fingerprint, StatePending, StateCurrent)
	if err != nil {
		return nil, fmt.Errorf("cannot approve a key of %s: %w", m.Name, err)
	}
	if key.Level >= Approved {
		return nil, nil
	}
	return []Event{{
		Kind: Approval, Machine: m.Name, Boot: key.Boot, Key: id, Fingerprint: key.Fingerprint, Level: Approved, By: w.By, At: w.At,
	}}, nil
}

// Release yields the event that ends a quarantine. The key with the word's fingerprint is current again, at least
// approved, and all others end; with an empty fingerprint all end, and the machine has to boot again.
func Release(m Machine, w Word) ([]Event, error) {
	if m.Quarantine == "" {
		return nil, fmt.Errorf("cannot release %s: it is not in quarantine", m.Name)
	}
	e := Event{Kind: Released, Machine: m.Name, Reason: m.Quarantine, By: w.By, At: w.At}
	if w.Fingerprint != "" {
		id, key, err := find(m, w.Fingerprint, StateQuarantined)
		if err != nil {
			return nil, fmt.Errorf("cannot release %s: %w", m.Name, err)
		}
		e.Key, e.Fingerprint, e.Boot, e.Incarnation, e.Level = id, key.Fingerprint, key.Boot, key.Incarnation, max(key.Level, Approved)
	}
	return []Event{e}, nil
}

// Wanted is a boot that the engine orders.
type Wanted struct {
	Why     string    // by which way, for people
	Request string    // what names the order if it may be given again, as after a crash; empty for one that is given once
	At      time.Time // now
}

// Order yields the event that a boot of the machine is ordered. There is none if nothing could be approved with it: where nobody
// trusts the boot network, and where nobody has confirmed its current key. Nor is there for an order that is given again when the
// boot has begun already: that is the one that was ordered, and it has what is left of the order's time.
func Order(m Machine, w Wanted) []Event {
	key, ok := m.Keys[m.Current]
	if !m.TrustBoot || m.Quarantine != "" || !ok || key.Level < Approved {
		return nil
	}
	if o := m.Ordered; w.Request != "" && o.Request == w.Request && o.Key == m.Current && w.At.Sub(o.At) < OrderValidity {
		for _, boot := range m.Boots {
			if boot.Issued.After(o.At) {
				return nil
			}
		}
	}
	boot := m.Boots[key.Boot]
	return []Event{{
		Kind: BootOrdered, Machine: m.Name, Key: m.Current, Fingerprint: key.Fingerprint, MAC: boot.MAC, Address: boot.Address,
		By: w.Why, Request: w.Request, At: w.At,
	}}
}

// End yields the event that ends every key of a machine: its connection is closed, and it has to boot again.
func End(m Machine, by string, at time.Time) []Event {
	for _, key := range m.Keys {
		if key.State != StateEnded {
			return []Event{{Kind: Ended, Machine: m.Name, Key: m.Current, By: by, At: at}}
		}
	}
	return nil
}

func find(m Machine, typed string, states ...State) (KeyID, Key, error) {
	fingerprint, err := ParseFingerprint(typed)
	if err != nil {
		return "", Key{}, err
	}
	var found KeyID
	for id, key := range m.Keys {
		for _, state := range states {
			if key.State != state || key.Fingerprint != fingerprint {
				continue
			}
			if found != "" {
				return "", Key{}, fmt.Errorf("two keys have the fingerprint %s, which does not happen by chance", fingerprint)
			}
			found = id
		}
	}
	if found == "" {
		return "", Key{}, fmt.Errorf("no key with the fingerprint %s waits; compare it with the machine's console", fingerprint)
	}
	return found, m.Keys[found], nil
}
