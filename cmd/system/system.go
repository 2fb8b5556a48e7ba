// Package system is the composition root: the one place that knows every part of the engine and puts them together. The
// programs in cmd and the tests under tests use it; nothing else does.
package system

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"joist/cmd/system/fresh"
	"joist/cmd/system/restapi"
	"joist/content/mirror"
	"joist/dhcp-dns/dhcp"
	"joist/dhcp-dns/dns"
	"joist/dhcp-dns/lease"
	"joist/dhcp-dns/zone"
	"joist/engine/drive"
	"joist/engine/journal/sqlstore"
	"joist/engine/step"
	"joist/pki/authority"
	"joist/providers/qemu"
	"joist/services/addresses"
	"joist/services/agents"
	"joist/services/balance"
	"joist/services/balance/tcp"
	"joist/services/boot"
	"joist/services/boot/artifacts"
	"joist/services/certs"
	"joist/services/certs/lists"
	"joist/services/clusters"
	"joist/services/names"
	"joist/services/power"
	"joist/services/reserve"
	"joist/services/secrets"
	"joist/services/site"

	"go4.org/netipx"
)

// Config says what an engine serves and where.
type Config struct {
	Data      string       // folder of everything durable; required
	Holder    string       // who runs it, for people
	Interface string       // network interface towards the machines; required
	Subnet    netip.Prefix // of that interface; required
	Address   netip.Addr   // the engine's own address in it; required
	BootSets  string       // folder with boot sets, each in a folder of its own; empty for none: nothing can boot
	Machines  *Machines    // virtual machines; nil for none
	Moved     bool         // machines that know the engine by another address are booted again
	Log       *slog.Logger // required

	Now func() time.Time // the engine's clock: of everything that is decided, noted or certified; nil for time.Now
}

// Machines is where the lab's virtual machines live.
type Machines struct {
	RunDir string // sockets and process records
	Bridge string
}

// Ports of the engine's listeners, the usual ones of their protocols where there is one.
const (
	agentPort = 8443
	httpPort  = 8080
	dnsPort   = 53
)

// System is an engine, put together.
type System struct {
	cfg       Config
	db        *sqlstore.DB
	ledger    *authority.FileLedger
	authority *authority.Authority

	Site      *site.Book
	Clusters  *clusters.Clusters
	Certs     *certs.Service
	Balance   *balance.Service
	Names     *names.Service
	Reserve   *reserve.Service
	Addresses *addresses.Service
	Boot      *boot.Server
	Power     *power.Controller
	Lab       *qemu.Provider // nil without virtual machines
	Artifacts *artifacts.Store
	Mirror    *mirror.Mirror

	dns      *dns.Server
	dhcp     *dhcp.Server
	gateway  *agents.Gateway
	gate     net.Listener // of the gateway
	balancer *tcp.Balancer
	sets     *sets
	files    *files
	logs     *logs
	live     *live
	wipes    wipes
	booted   noted // digest of the boot set that a machine was last given
	handed   noted // cluster, and kernel's boot id of the discovery image, that a machine may leave for its node image
	secrets  *secrets.Keeper
	notices  notices
	failed   chan error // the write after which the engine ends
	first    bool       // no engine has served from the data folder
	started  time.Time
	now      func() time.Time
}

// Open puts the engine together and binds its ports. Close it, whether or not it was served.
func Open(ctx context.Context, cfg Config) (*System, error) {
	if cfg.Data == "" || cfg.Interface == "" || !cfg.Subnet.IsValid() || !cfg.Address.IsValid() || cfg.Log == nil {
		return nil, errors.New("internal error: an engine needs a data folder, an interface, its subnet and address, and a log")
	}
	if cfg.Holder == "" {
		cfg.Holder = "joist serve"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	folder := fresh.Look(cfg.Data)
	s := &System{cfg: cfg, now: cfg.Now, started: cfg.Now(), live: newLive(), failed: make(chan error, 1)}
	for _, stage := range []func(context.Context) error{s.openStores, s.checkPlace, s.recallNotices, s.openPower, s.openServices, s.openClusters, s.openBoot, s.listenAgents, s.startClusters} {
		if err := stage(ctx); err != nil {
			if s.first && !folder.Had("joist.db") { // nobody has ever served from here, and nobody else can before the store is closed
				err = errors.Join(err, folder.Clear())
			}
			s.Close()
			return nil, advised(errors.Join(err, folder.Leave()))
		}
	}
	return s, nil
}

func (s *System) openStores(ctx context.Context) error {
	var err error
	if s.db, err = sqlstore.Open(ctx, sqlstore.Config{Dir: s.cfg.Data, Holder: s.cfg.Holder, Failed: s.storeFailed}); err != nil {
		return err
	}
	if list, err := s.db.Journals().List(ctx); err == nil {
		s.first = len(list) == 0
	}
	if err := s.checkWhole(ctx); err != nil {
		return err
	}
	s.secrets, err = secrets.Open(ctx, secrets.Config{
		Folder: filepath.Join(s.cfg.Data, "secrets"), Blobs: s.db.Blobs(), Keyed: s.db.Keyed(), Random: rand.Reader,
	})
	if err != nil {
		return err
	}
	vault, err := authority.OpenFolder(filepath.Join(s.cfg.Data, "ca"), "")
	if err != nil {
		return err
	}
	if s.ledger, err = authority.OpenLedger(filepath.Join(s.cfg.Data, "ca", "ledger.jsonl")); err != nil {
		return err
	}
	if s.authority, err = authority.Open(ctx, authority.Config{Vault: vault, Ledger: s.ledger, Now: s.now}); err != nil {
		return err
	}
	if s.Artifacts, err = artifacts.Open(filepath.Join(s.cfg.Data, "artifacts")); err != nil {
		return err
	}
	if err := errors.Join(s.Artifacts.Sweep(), s.openMirror()); err != nil {
		return err
	}
	if s.sets, err = openSets(ctx, filepath.Join(s.cfg.Data, "bootsets"), s.cfg.BootSets, s.Artifacts); err != nil {
		return err
	}
	s.Site, err = site.Open(ctx, site.Config{
		Store: s.db.Journals(), Holder: s.cfg.Holder, Random: rand.Reader, Log: s.cfg.Log, Now: s.now,
		Secret: s.voucher, Changed: s.machineChanged,
	})
	s.logs = newLogs(func(cluster string) int { return s.Site.Life(cluster) })
	return err
}

// openPower takes up the machines that a provider has, so that clusters can choose among them before they ever ran.
func (s *System) openPower(ctx context.Context) error {
	var err error
	if s.Power, err = power.NewController(power.Config{}); err != nil || s.cfg.Machines == nil {
		return err
	}
	kernel := ""
	if m := s.sets.current(); m != nil {
		kernel = filepath.Join(s.cfg.Data, "artifacts", "sha256-"+m.Kernel.SHA256)
	}
	s.Lab, err = qemu.New(qemu.Config{
		DataDir: filepath.Join(s.cfg.Data, "machines"), RunDir: s.cfg.Machines.RunDir, Bridge: s.cfg.Machines.Bridge, Kernel: kernel, Log: s.cfg.Log,
	})
	if err != nil {
		return err
	}
	return s.adoptMachines(ctx)
}

func (s *System) openServices(ctx context.Context) error {
	store := s.db.Entries()
	var err error
	s.Addresses, err = addresses.Open(ctx, addresses.Config{
		DB: s.db.Gorm(), Server: s.cfg.Address, Booter: booter{s}, Log: s.cfg.Log, Now: s.now,
		Lease: lease.Config{Subnet: s.cfg.Subnet, Ranges: []netipx.IPRange{s.pool()}},
	})
	if err != nil {
		return err
	}
	s.dns, err = dns.Listen(dns.Config{Addresses: []netip.AddrPort{netip.AddrPortFrom(s.cfg.Address, dnsPort)}, Log: s.cfg.Log})
	if err != nil {
		return err
	}
	s.Names, err = names.New(names.Config{Store: store, Server: s.dns, Zone: zone.Config{ServerAddresses: []netip.Addr{s.cfg.Address}}})
	if err != nil {
		return err
	}
	s.Reserve = reserve.New(store)
	if s.Certs, err = certs.New(certs.Config{Authority: s.authority, Store: store, Inventory: inventory{s}, Now: s.now}); err != nil {
		return err
	}
	if s.balancer, err = tcp.New(tcp.Config{Log: s.cfg.Log}); err != nil {
		return err
	}
	if err := routeFronts(s.fronts()); err != nil {
		return err
	}
	s.Balance, err = balance.New(balance.Config{
		Store: store, Driver: s.balancer, Frontends: balance.Prefix(s.fronts()), Names: s.Names.Handlers()["names.put"], Foresee: s.Names.Foresee,
		Log: s.cfg.Log,
	})
	if err != nil {
		return err
	}
	return errors.Join(s.Names.Load(ctx), s.Balance.Load(ctx))
}

// Signatures is the catalogue of every service operation that a step can call.
func Signatures() []step.Signature {
	var all []step.Signature
	all = append(all, names.Signatures()...)
	all = append(all, certs.Signatures()...)
	all = append(all, reserve.Signatures()...)
	all = append(all, secrets.Signatures()...)
	return append(all, balance.Signatures()...)
}

func (s *System) openClusters(ctx context.Context) error {
	listener, err := s.authority.Listener(ctx, []string{s.cfg.Address.String()})
	if err != nil {
		return err
	}
	issuer, err := s.authority.Agents(ctx)
	if err != nil {
		return err
	}
	s.gateway, err = agents.New(agents.Config{
		Site: siteOfAgents{s.Site, s}, Signer: newSigner(issuer, s.now), Engine: engineOfAgents{s}, Certificate: listener.GetCertificate,
		Clients: issuer.Pool, Root: s.authority.RootPEM(), Log: s.cfg.Log, Now: s.now,
	})
	if err != nil {
		return err
	}
	handlers := map[string]step.Handler{}
	for _, more := range []map[string]step.Handler{
		s.Names.Handlers(), s.Certs.Handlers(), s.Balance.Handlers(), s.Reserve.Handlers(), secrets.Handlers(rand.Reader),
	} {
		for name, h := range more {
			handlers[name] = h
		}
	}
	s.Clusters = clusters.New(clusters.Config{
		Drive: drive.Config{
			Holder: s.cfg.Holder, Store: s.db.Journals(), Snapshots: s.db.Journals(), Blobs: s.db.Blobs(), Services: handlers,
			Nodes: nodes{s}, Site: machines{s}, Secrets: s.secrets, Log: s.cfg.Log, Now: s.now,
		},
		Compiler: compiler{s.Mirror}, Site: siteOfClusters{s}, Networks: []netip.Prefix{s.cfg.Subnet.Masked()}, Forget: s.forget,
		Foresee: []step.Foresee{s.Names.Foresee, s.Balance.Foresee},
		Drop:    s.drop,
	})
	return nil
}

// drop ends what is left of a destroyed cluster: its journal, and what its steps wrote.
func (s *System) drop(ctx context.Context, d clusters.Dropped) error {
	if err := restapi.Drop(ctx, s.Site, s.db.Journals(), d); err != nil {
		return err
	}
	s.logs.drop(d.Cluster)
	return nil
}

// startClusters comes last: what was in flight is repeated at once, and may ask any part of the engine.
func (s *System) startClusters(ctx context.Context) error { return s.Clusters.Start(ctx) }

func (s *System) openBoot(ctx context.Context) error {
	var err error
	s.Boot, err = boot.New(boot.Config{
		Inventory: bootInventory{s}, Issuer: bootIssuer{s}, Sets: bootSets{s}, Observer: bootObserver{s}, Artifacts: s.Artifacts,
		URLs: []string{"https://" + netip.AddrPortFrom(s.cfg.Address, agentPort).String()}, CA: s.authority.Pin(),
		HTTP: netip.AddrPortFrom(s.cfg.Address, httpPort), Revoked: lists.Handler(s.Certs, s.cfg.Log), Log: s.cfg.Log, Now: s.now,
	})
	if err != nil {
		return err
	}
	for _, m := range s.Site.Machines() {
		s.recallBoot(m)
	}
	if err := s.Boot.Listen(ctx); err != nil {
		return err
	}
	s.dhcp, err = dhcp.Listen(dhcp.Config{Interface: s.cfg.Interface, Address: s.cfg.Address, Handler: s.Addresses, Log: s.cfg.Log})
	return err
}

// Close gives everything back, in the order in which nothing asks what is gone already.
func (s *System) Close() {
	if s.Clusters != nil {
		s.Clusters.Close()
	}
	if s.gate != nil {
		_ = s.gate.Close() // the gateway has closed it, if it served
	}
	if s.dhcp != nil {
		s.dhcp.Close()
	}
	if s.dns != nil {
		s.dns.Close()
	}
	if s.balancer != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := s.balancer.Close(ctx); err != nil {
			s.cfg.Log.Debug("connections through the balancer were cut", "error", err)
		}
		cancel()
	}
	if s.Addresses != nil {
		s.Addresses.Close()
	}
	if s.ledger != nil {
		if err := s.ledger.Close(); err != nil {
			s.cfg.Log.Warn("cannot close the ledger of certificates", "error", err)
		}
	}
	if s.db != nil {
		if err := s.db.Close(); err != nil {
			s.cfg.Log.Warn("cannot close the database", "error", err)
		}
	}
}

// pool is the part of the subnet that DHCP gives out: its lower three quarters but the first addresses.
func (s *System) pool() netipx.IPRange {
	first := s.cfg.Subnet.Masked().Addr()
	for range 10 {
		first = first.Next()
	}
	return netipx.IPRangeFrom(first, s.fronts().Masked().Addr().Prev())
}

// fronts is the part of the subnet that balancers listen on: its last quarter.
func (s *System) fronts() netip.Prefix { return frontsOf(s.cfg.Subnet) }

func frontsOf(subnet netip.Prefix) netip.Prefix {
	bits := subnet.Bits() + 2
	last := netipx.PrefixLastIP(subnet)
	return netip.PrefixFrom(last, bits).Masked()
}

// live is what is known of connections now; it dies with the process.
type live struct {
	mu    sync.Mutex
	nodes map[string]connection
}
