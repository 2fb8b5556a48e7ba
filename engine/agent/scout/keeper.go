package scout

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// KeeperConfig says what a keeper keeps.
type KeeperConfig struct {
	Lease *Lease
	// Dir is where renewed leases are written for whoever comes after this process; nowhere where empty.
	Dir string
	// Root is below which etc/resolv.conf is written; / where empty.
	Root string
	Log  *slog.Logger
}

// Keeper renews a lease for as long as it runs.
type Keeper struct {
	config KeeperConfig

	mu    sync.Mutex
	lease *Lease
}

// NewKeeper makes a keeper.
func NewKeeper(config KeeperConfig) *Keeper {
	if config.Root == "" {
		config.Root = "/"
	}
	return &Keeper{config: config, lease: config.Lease}
}

// Lease is the present lease.
func (k *Keeper) Lease() *Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lease
}

// Run renews the lease until ctx ends. now, if set, renews at once: after the hand-over the server has a longer lease
// for a node than it had for scout. Failures are logged and tried again; the address stays meanwhile.
func (k *Keeper) Run(ctx context.Context, now bool) {
	lastTry := time.Duration(-1)
	for {
		lease := k.Lease()
		state, wait := lease.next(bootClock(), lastTry)
		if now {
			state, wait, now = leaseRenew, 0, false
		}
		if state == leaseHeld {
			// Time may pass unnoticed while a machine sleeps or its clock is stopped: look at least every minute.
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(wait, time.Minute)):
			}
			continue
		}
		lastTry = bootClock()
		if err := k.advance(ctx, lease, state); err != nil && ctx.Err() == nil {
			k.config.Log.Warn("cannot renew the lease", "address", lease.Address, "error", err)
		}
	}
}

// advance makes one attempt. An attempt takes some seconds at most.
func (k *Keeper) advance(ctx context.Context, lease *Lease, state leaseState) error {
	nic, err := linkByMAC(lease.MAC)
	if err != nil {
		return err
	}
	name := nic.Attrs().Name
	var fresh *Lease
	if state == leaseLost {
		fresh, err = Discover(ctx, name, lease.MAC, NodeClass)
	} else {
		fresh, err = extend(ctx, name, lease, state)
		if errors.Is(err, errNak) {
			fresh, err = Discover(ctx, name, lease.MAC, NodeClass)
		}
	}
	if err != nil {
		return err
	}
	if err := fresh.Apply(k.config.Root); err != nil {
		return err
	}
	if fresh.Address != lease.Address {
		k.config.Log.Warn("the address changed", "from", lease.Address, "to", fresh.Address)
		if err := lease.withdraw(); err != nil {
			return err
		}
		// With the first address of a subnet the kernel takes the later ones, and routes through them, away too.
		if err := fresh.Apply(k.config.Root); err != nil {
			return err
		}
	}
	k.mu.Lock()
	k.lease = fresh
	k.mu.Unlock()
	k.config.Log.Info("lease renewed", "address", fresh.Address, "seconds", int(fresh.Expire.Seconds()))
	if k.config.Dir == "" {
		return nil
	}
	return fresh.write(k.config.Dir)
}
