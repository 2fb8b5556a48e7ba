package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"joist/cmd/system"
	"joist/cmd/system/simulation"
	"joist/content"
	"joist/services/clusters"
	"joist/workflows/lang"
)

// simulationSeed and simulationFaults are those of `joist simulate FILE --seed 7 --faults crash,partition,slow,lie`.
const simulationSeed = 7

func simulationFaults() []string { return []string{"crash", "partition", "slow", "lie"} }

// basePack calls the steps of the base pack that need no bundle, each on every node; one looks at all nodes' names.
const basePack = `pack "site" {
  version  = "0.1.0"
  summary  = "The steps of the base pack."
  requires = { base = ">= 0.1.0" }
}

workflow "cluster" {
  role "member" { min = 1 }
  input "domain" { type = fqdn }

  task "name" {
    step = base.dns_record
    each = role.member
    with = { name = "${node.name}.${input.domain}", addresses = [node.address] }
  }
  task "hosts" {
    step = base.hosts
    each = role.member
    with = { entries = all.name }
  }
  task "network" {
    step = base.network
    each = role.member
    with = { within = "10.200.0.0/14", prefix = 24 }
  }
  task "key" {
    step = base.node_key
    each = role.member
    with = { purpose = "site" }
  }
  task "cert" {
    step = base.certificate
    each = role.member
    with = { csr = task.key.csr, profile = "server", names = [task.name.fqdn] }
  }
  task "front" {
    step = base.balancer
    with = { name = "www.${input.domain}", port = 443 }
  }
  task "motd" {
    step = base.file
    each = role.member
    with = { name = "/etc/motd", content = task.name.fqdn }
  }
  task "unit" {
    step  = base.systemd_unit
    each  = role.member
    with  = { name = "site.service", content = "[Service]\nExecStart=/bin/true\n" }
    after = [task.motd, task.cert, task.hosts]
  }
  task "backend" {
    step  = base.balancer_backend
    each  = role.member
    with  = { front = task.front.url, address = node.address, port = 443 }
    after = [task.unit]
  }

  rollout "members" {
    tasks         = [task.motd, task.unit]
    max_in_flight = "10%"
  }
}
`

// simulatedFile gives the cluster file that is simulated for a pack, with its packs.
func simulatedFile(pack string) (clusters.Source, error) {
	nodes, packs, own := `{ member = select(true, 3) }`, "base = { source = \"builtin\" }, etcd = { source = \"builtin\" }", map[string]*lang.Pack{}
	workflow := pack + ".cluster"
	switch pack {
	case "etcd":
	case "kubernetes":
		nodes, packs = `{ control = select(true, 1), worker = select(true, 2) }`, packs+", kubernetes = { source = \"builtin\" }"
	case "base":
		workflow, packs = "site.cluster", "base = { source = \"builtin\" }, site = { source = \"./site\" }"
		p, ds := lang.Load(map[string][]byte{"pack.hcl": []byte(basePack)}, system.Catalogue())
		if ds.HasErrors() {
			return clusters.Source{}, errors.New(ds.Text())
		}
		own["site"] = p
	}
	src := clusters.Source{FileName: pack + ".hcl", Packs: map[string][]byte{}, File: fmt.Appendf(nil,
		"cluster \"demo\" {\n  workflow = %s\n  packs = { %s }\n  nodes = %s\n  with = { domain = \"demo.lab\" }\n  storage = \"memory\"\n}\n", workflow, packs, nodes)}
	for name, p := range own {
		src.Packs[name] = p.Archive()
	}
	for _, name := range []string{"base", "etcd", "kubernetes"} {
		if pack == "base" && name != "base" || pack == "etcd" && name == "kubernetes" {
			continue
		}
		files, err := content.Find(name, content.Builtin, "")
		if err != nil {
			return clusters.Source{}, err
		}
		p, ds := lang.Load(files, system.Catalogue())
		if ds.HasErrors() {
			return clusters.Source{}, errors.New(ds.Text())
		}
		src.Packs[name] = p.Archive()
	}
	return src, nil
}

// simulated is what the role says.
type simulated struct {
	Outcome, Digest          string
	Instances, Runs          int
	Events                   uint64
	Real, Virtual, Peak, CPU float64
}

// simulateOnce is `joist simulate` of the pack that Address names.
func simulateOnce(ctx context.Context, a arguments) error {
	src, err := simulatedFile(a.Address)
	if err != nil {
		return err
	}
	cpu := processorTime()
	s, _, err := simulation.Run(ctx, simulation.Config{Source: src, Nodes: a.Nodes, Seed: simulationSeed, Faults: simulationFaults(), Again: 20})
	if err != nil {
		return err
	}
	return say(simulated{
		Outcome: s.Outcome, Digest: s.Digest, Instances: s.Instances, Runs: s.Tally.Runs, Events: s.Tally.Events, Real: s.Real, Virtual: s.Virtual,
		Peak: peakMemory(), CPU: (processorTime() - cpu).Seconds(),
	})
}

// simulations measures packs on so many simulated machines that crash, are cut off, are slow and lie. Each runs twice, and
// must write the same journal.
func simulations(ctx context.Context, s *suite, nodes int) error {
	for _, pack := range []string{"base", "etcd", "kubernetes"} {
		a := arguments{Nodes: nodes, Address: pack}
		var got [2]simulated
		for i := range got {
			if _, _, err := perform(ctx, "simulate", a, &got[i]); err != nil {
				return err
			}
			if nodes >= 1000 && pack == "kubernetes" {
				a.Profile = filepath.Join(s.results, fmt.Sprintf("simulate_%s_%d", pack, nodes)) // of the second
			}
		}
		if got[0].Digest != got[1].Digest {
			return fmt.Errorf("the same simulation of %s wrote journals %s and %s", pack, got[0].Digest, got[1].Digest)
		}
		if got[0].Outcome != "converged" {
			return fmt.Errorf("the simulation of %s ended %s", pack, got[0].Outcome)
		}
		size := fmt.Sprintf("_%s_%d", pack, nodes)
		s.out.value("simulate"+size, got[0].Real, "s")
		s.out.value("simulate_cpu"+size, got[0].CPU, "s")
		s.out.value("simulate_peak_memory"+size, got[0].Peak, "MiB")
		s.out.value("simulate_events"+size, float64(got[0].Events), "events")
		s.out.value("simulate_virtual"+size, got[0].Virtual, "virtual s")
		progress("simulate%s: %d instances, %d runs, journal %s", size, got[0].Instances, got[0].Runs, got[0].Digest)
	}
	return nil
}
