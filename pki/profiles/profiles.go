// Package profiles says what each kind of certificate is good for, as data.
package profiles

import (
	"fmt"
	"strings"
	"time"
)

// Profile is one kind of certificate.
type Profile struct {
	Name     string
	Server   bool          // extended key usage serverAuth
	Client   bool          // extended key usage clientAuth
	Names    bool          // carries DNS names and addresses
	URI      bool          // carries exactly one URI, the identity of an agent, and no other name
	Validity time.Duration // from its issue, before it is clamped to the issuer's
}

// The names of the profiles.
const (
	Peer   = "peer"   // both ends of a connection between members: etcd
	Server = "server" // a server
	Client = "client" // a client, known by its common name
	Agent  = "agent"  // the agent of a node to the engine; one URI name
	Engine = "engine" // the engine's own listeners
)

const day = 24 * time.Hour

// All lists the profiles.
func All() []Profile {
	return []Profile{
		{Name: Peer, Server: true, Client: true, Names: true, Validity: 30 * day},
		{Name: Server, Server: true, Names: true, Validity: 30 * day},
		{Name: Client, Client: true, Names: true, Validity: 30 * day},
		{Name: Agent, Client: true, URI: true, Validity: day},
		{Name: Engine, Server: true, Names: true, Validity: 30 * day},
	}
}

// ForClusters lists the names of the profiles that steps of a cluster may ask for.
func ForClusters() []string { return []string{Peer, Server, Client} }

// Find gives a profile by its name.
func Find(name string) (Profile, error) {
	var known []string
	for _, p := range All() {
		if p.Name == name {
			return p, nil
		}
		known = append(known, p.Name)
	}
	return Profile{}, fmt.Errorf("cannot find certificate profile %.40q: want one of %s", name, strings.Join(known, ", "))
}
