// Package decide holds the boot decision: one pure function from what is known about a machine, what its firmware
// says, and what is wanted of it, to the answer it gets. It does no I/O and takes the time as an argument.
//
// The machine asks twice. At the DHCP stage the answer is silence, an address alone, the first loader by TFTP, or the
// address of its script; at the script stage, which only iPXE reaches, the answer is what to start.
package decide

import (
	"fmt"
	"strings"
	"time"
)

// Stage is the question that is being answered.
type Stage uint8

// The two stages of a network boot.
const (
	StageDHCP   Stage = iota // a DHCP request: which address and which boot file
	StageScript              // iPXE asks over HTTP for its script
)

// Firmware is what a DHCP request says about the program that sent it. At the script stage only MAC and UUID are known.
type Firmware struct {
	MAC         MAC
	UUID        UUID     // option 97 (RFC 4578 § 2.3), empty where absent or meaningless
	Archs       []uint16 // option 93, in the client's order of preference (RFC 4578 § 2.1, RFC 5970 § 3.3)
	VendorClass string   // option 60, such as "PXEClient:Arch:00007:UNDI:003016"
	IPXE        bool     // user class "iPXE" (option 77) or option 175 present
	HTTP        bool     // asks for UEFI HTTP boot; a vendor class that begins "HTTPClient" says the same
}

// Target is what is wanted of a machine at its next boot.
type Target uint8

// Targets. The zero value is scout: a machine of which nothing is wanted yet is to be discovered.
const (
	TargetScout   Target = iota
	TargetDisk           // leave it to its disk
	TargetWait           // keep it in iPXE, asking again
	TargetRescue         // not yet
	TargetWipe           // start scout, which erases what is ours on its disks
	TargetInstall        // not yet
)

// String returns the word that people read.
func (t Target) String() string {
	words := [...]string{"scout", "disk", "wait", "rescue", "wipe", "install"}
	if int(t) < len(words) {
		return words[t]
	}
	return fmt.Sprintf("target %d", uint8(t))
}

// Machine is the part of a machine's record that decides how it boots. The zero value is a machine nobody knows.
type Machine struct {
	Known       bool
	Name        string    // node name, for messages; empty where it has none yet
	Quarantined string    // why it is quarantined; empty if it is not
	Until       time.Time // when the quarantine ends by itself; zero: when a person ends it
	Enrolled    bool      // an agent of it holds a current key, so an address may be leased for long
}

// Policy is what the operator decided for all machines.
type Policy struct {
	IgnoreUnknown bool // say nothing to machines without a record; by default they are discovered through scout
}

// Request is everything the decision depends on.
type Request struct {
	Stage    Stage
	Machine  Machine
	Firmware Firmware
	Target   Target
	Policy   Policy
	Now      time.Time
}

// Kind is the answer's kind.
type Kind uint8

// Kinds of answer; the first four belong to the DHCP stage, the others to the script stage, silence to both.
const (
	Silence Kind = iota // no reply at all
	Address             // an address and no boot file: a running system asks
	Loader              // Answer.Loader by TFTP
	Script              // the address of the machine's own iPXE script over HTTP
	Scout               // kernel, scout initramfs and a command line
	Disk                // leave iPXE for the disk
	Wait                // stay in iPXE, show Answer.Reason, ask again after Answer.Delay
	NotYet              // a target that joist does not serve yet: show Answer.Reason, ask again after Answer.Delay
)

// String returns the kind's name.
func (k Kind) String() string {
	words := [...]string{"silence", "address", "loader", "script", "scout", "disk", "wait", "not yet"}
	if int(k) < len(words) {
		return words[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Lease is how long an address is to be leased, by the phase the machine is in.
type Lease uint8

// Phases of a lease.
const (
	LeaseNone     Lease = iota // no address
	LeaseFirmware              // firmware or iPXE asks: minutes, so that a pool survives a rack's power-on
	LeaseScout                 // a running system of a machine that is not enrolled
	LeaseEnrolled              // a running system of an enrolled machine
)

// Duration returns the lease time of the phase: 2 minutes, 10 minutes, 24 hours.
func (l Lease) Duration() time.Duration {
	switch l {
	case LeaseFirmware:
		return 2 * time.Minute
	case LeaseScout:
		return 10 * time.Minute
	case LeaseEnrolled:
		return 24 * time.Hour
	default:
		return 0
	}
}

// Files that the first loader is fetched as. Both hand over to iPXE with the firmware's own network driver, which works
// wherever the firmware got as far as asking.
const (
	LoaderBIOS  = "undionly.kpxe"
	LoaderUEFI  = "snponly.efi"
	waitDelay   = 30 * time.Second
	notYetDelay = 60 * time.Second
)

// Answer is the decision.
type Answer struct {
	Kind   Kind
	Lease  Lease         // DHCP stage only
	Loader string        // Kind Loader: LoaderBIOS or LoaderUEFI
	Delay  time.Duration // Kinds Wait and NotYet: how long before asking again
	Reason string        // one clause for logs, events and the machine's console; never empty
	Notice bool          // worth an event: a person has to know or to do something
}

// Decide answers a machine. It never sends a loader to iPXE, so a machine cannot chain loaders in a circle, and never a
// TFTP name to a client of HTTP boot.
func Decide(r Request) Answer {
	if !r.Machine.Known && r.Policy.IgnoreUnknown {
		return Answer{Reason: "the machine is unknown and the policy is to ignore unknown machines"}
	}
	if r.Stage == StageScript {
		return script(r)
	}
	return dhcp(r)
}

func dhcp(r Request) Answer {
	f := r.Firmware
	switch {
	case f.HTTP || strings.HasPrefix(f.VendorClass, "HTTPClient"):
		// A TFTP name would strand it, and so would a redirect or a name it cannot resolve; most firmware tries PXE next.
		return Answer{Reason: "the firmware asks for UEFI HTTP boot, which is not served yet; let it boot by PXE (IPv4)", Notice: true}
	case f.IPXE:
		if a, ok := architecture(f); !ok && a != "" {
			return Answer{Reason: "iPXE runs on " + a + ", for which there is no boot set", Notice: true}
		}
		return Answer{Kind: Script, Lease: LeaseFirmware, Reason: "iPXE is sent to its script"}
	case strings.HasPrefix(f.VendorClass, "PXEClient"):
		return loader(r)
	case r.Machine.Enrolled && !quarantined(r):
		return Answer{Kind: Address, Lease: LeaseEnrolled, Reason: "the running system of an enrolled machine asks for its address"}
	default:
		return Answer{Kind: Address, Lease: LeaseScout, Reason: "a running system that is not enrolled asks for an address"}
	}
}

// loader answers the firmware's own PXE client. A quarantined machine gets its loader too: its console is then the one
// place that says why it does not go on.
func loader(r Request) Answer {
	if r.Target == TargetDisk && !quarantined(r) {
		return Answer{Reason: "the machine boots from its disk: without a reply its firmware goes on to the next device"}
	}
	a, ok := architecture(r.Firmware)
	if !ok {
		if a == "" {
			a = "an architecture it does not name (no option 93)"
		}
		return Answer{Reason: "the firmware runs on " + a + ", for which there is no loader", Notice: true}
	}
	return Answer{Kind: Loader, Lease: LeaseFirmware, Loader: a, Reason: "the firmware is sent its first loader, " + a}
}

func script(r Request) Answer {
	if quarantined(r) {
		reason := "this machine is quarantined: " + r.Machine.Quarantined
		if !r.Machine.Until.IsZero() {
			reason += ", until " + r.Machine.Until.UTC().Format(time.RFC3339)
		}
		return Answer{Kind: Wait, Delay: waitDelay, Reason: reason, Notice: true}
	}
	switch r.Target {
	case TargetScout:
		if !r.Machine.Known {
			return Answer{Kind: Scout, Reason: "an unknown machine is discovered through scout"}
		}
		return Answer{Kind: Scout, Reason: "the machine starts scout"}
	case TargetWipe:
		return Answer{Kind: Scout, Reason: "the machine starts scout, to be wiped"}
	case TargetDisk:
		return Answer{Kind: Disk, Reason: "the machine boots from its disk"}
	case TargetWait:
		return Answer{Kind: Wait, Delay: waitDelay, Reason: "the machine is told to wait"}
	default:
		return Answer{Kind: NotYet, Delay: notYetDelay, Reason: "target " + r.Target.String() + " is not served yet; choose scout or disk", Notice: true}
	}
}

func quarantined(r Request) bool {
	m := r.Machine
	return m.Quarantined != "" && (m.Until.IsZero() || r.Now.Before(m.Until))
}
