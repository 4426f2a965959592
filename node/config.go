package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/ipfs/boxo/blockstore"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// Roles of a node.
const (
	RoleStorage = "storage" // proves storage, takes orders, may validate
	RoleEdge    = "edge"    // the same node without prover and validator: it reads and serves
)

// Config says what a node is. The four fields without a toml name may be given
// or left nil, which means "open the real one from Home"; there is no other way
// to build a node, so tests and production cannot drift. The zero Config is not
// usable: start from Defaults.
type Config struct {
	// Home is the directory of the node (house 3.13). Empty means that all four
	// fields below are given and nothing is kept.
	Home string `toml:"-"`
	// Host is the libp2p host. A given one stays the caller's to close, and its
	// key is the node's account.
	Host host.Host `toml:"-"`
	// Chain is the ledger. A given one stays the caller's to close.
	Chain Chain `toml:"-"`
	// Prover is the enclave. Nil on an edge, which has none, and where
	// ProverSocket is empty and the genesis allows simulated ones: then one is
	// opened in Home/sealed. A given one stays the caller's to close.
	Prover Prover `toml:"-"`
	// Blocks keeps plain blocks. A given one stays the caller's to close.
	Blocks blockstore.Blockstore `toml:"-"`
	// Fetch gets the newest collateral of Intel for a family of platforms, as a
	// message to the chain (spec §3.2). Nil: this node brings none.
	Fetch func(ctx context.Context, fmspc, ca string) (chain.Msg, error) `toml:"-"`
	// Logger hears of what happens. Nil discards.
	Logger *slog.Logger `toml:"-"`
	// Version is shown by the API.
	Version string `toml:"-"`

	Role    string        `toml:"role"`
	P2P     P2PConfig     `toml:"p2p"`
	Comet   CometConfig   `toml:"comet"`
	Gateway GatewayConfig `toml:"gateway"`
	API     APIConfig     `toml:"api"`
	Keeper  KeeperConfig  `toml:"keeper"`
	Prove   ProverConfig  `toml:"prover"`

	Collateral CollateralConfig `toml:"collateral"`

	Cache   CacheConfig   `toml:"cache"`
	Bitswap BitswapConfig `toml:"bitswap"`
	Credit  CreditConfig  `toml:"credit"`
	Log     LogConfig     `toml:"log"`
}

// P2PConfig is the libp2p host and its DHT.
type P2PConfig struct {
	Listen    []string `toml:"listen"`    // multiaddrs
	Announce  []string `toml:"announce"`  // multiaddrs to publish on chain; empty means those listened on
	Bootstrap []string `toml:"bootstrap"` // multiaddrs with peer ID, beside those of the genesis
	DHT       bool     `toml:"dht"`       // join the chain's own DHT
	// AllowPrivate dials private and loopback addresses, on chains that are no
	// devnets too, and gives them out: for a chain on a private network.
	AllowPrivate bool `toml:"allow_private"`
	// ReceiveWindow is how many bytes a peer may send on a fresh stream before it
	// waits for us, 256 KiB to 16 MiB; 262144 is libp2p's own. See [ReceiveWindow].
	ReceiveWindow uint64 `toml:"receive_window"`
}

// CometConfig is the consensus engine.
type CometConfig struct {
	Listen string   `toml:"listen"` // host:port of its own p2p
	Peers  []string `toml:"peers"`  // id@host:port, beside those of the genesis
}

// GatewayConfig is the HTTP gateway.
type GatewayConfig struct {
	Listen   string   `toml:"listen"`   // host:port; empty means none
	Deadline Duration `toml:"deadline"` // a request that got nothing by then is a 504
}

// APIConfig is the admin API beside its socket.
type APIConfig struct {
	Listen string `toml:"listen"` // loopback host:port, wants the bearer token; empty means the socket alone
}

// KeeperConfig is this node's policy on orders; none of it is consensus.
type KeeperConfig struct {
	TargetReplicas int      `toml:"target_replicas"` // orders with so many replicas are left alone
	PreferKnown    bool     `toml:"prefer_known"`    // orders whose sources or holders have served this node come first, those of nodes that failed it last
	Parallel       int      `toml:"parallel"`        // files fetched at once
	Capacity       uint64   `toml:"capacity"`        // most bytes of files to seal
	SRDUnits       int      `toml:"srd_units"`       // sealed random data to keep, in units (spec §3.23)
	FetchTimeout   Duration `toml:"fetch_timeout"`   // longest time without a new block of a file
}

// ProverConfig says where the enclave is.
type ProverConfig struct {
	Socket string `toml:"socket"` // of a running prover; empty means a simulated one inside this process
	// Disks are further directories for what the simulated one inside this process
	// seals; a prover with a socket is told its own with --disk.
	Disks []string `toml:"disks"`
}

// CollateralConfig says whether this node brings Intel's collateral to the chain
// before it ends (spec §3.2). Each submission is paid by this node's account.
type CollateralConfig struct {
	Every  Duration `toml:"every"`  // between two looks; 0: never
	Before Duration `toml:"before"` // a piece is worth renewing so long before it ends
	FMSPCs []string `toml:"fmspcs"` // families beside those on chain and this node's own
	CA     string   `toml:"ca"`     // processor or platform: who certified the platforms
	From   string   `toml:"from"`   // service to ask; empty: Intel's
}

// CacheConfig bounds the plain blocks kept, in bytes.
type CacheConfig struct {
	Memory uint64 `toml:"memory"`
	Disk   uint64 `toml:"disk"`
}

// Who may be asked for blocks over HTTP.
const (
	HTTPPublic = "public" // providers at public addresses, over TLS
	HTTPAny    = "any"    // at private and loopback addresses too
	HTTPOff    = "off"    // nobody
)

// BitswapConfig is the exchange.
type BitswapConfig struct {
	Strategy string `toml:"strategy"` // enforce, observe or off
	// Delegated are URLs of delegated routers (/routing/v1), which are asked beside
	// the DHT for content that the chain does not know. Each learns what is sought.
	Delegated []string `toml:"delegated"`
	// HTTP says whom of those that routing names we ask for blocks over HTTP. A
	// provider record may name any host: with HTTPAny whoever writes one can have
	// this node ask hosts of its operator's own network.
	HTTP string `toml:"http"`

	Server           string `toml:"server"`             // lode or boxo
	Rate             uint64 `toml:"rate"`               // bytes a second served; 0 = no limit
	PeerRate         uint64 `toml:"peer_rate"`          // bytes a second served to one peer; 0 = no limit
	Wants            int    `toml:"wants"`              // wants kept of one peer
	Lookups          uint64 `toml:"lookups"`            // presence lookups a second
	PeerLookups      uint64 `toml:"peer_lookups"`       // presence lookups a second for one peer
	SmallBlock       int    `toml:"small_block"`        // bytes of a block sent in place of HAVE; below 0 = none
	DontHave         bool   `toml:"dont_have"`          // say so
	StreamPerMessage bool   `toml:"stream_per_message"` // as boxo answers
}

// serve is how others are served.
func (c BitswapConfig) serve() bitswap.Serve {
	small := c.SmallBlock
	if small == 0 {
		small = -1
	}
	return bitswap.Serve{
		Server: c.Server, Rate: c.Rate, PeerRate: c.PeerRate, Wants: c.Wants, Lookups: c.Lookups, PeerLookups: c.PeerLookups,
		SmallBlock: small, NoDontHave: !c.DontHave, StreamPerMessage: c.StreamPerMessage,
	}
}

// CreditConfig is what this node asks and pays for blocks (spec §7.5). It opens no
// tab: who wants to pay does that with `lode credit tab open`.
type CreditConfig struct {
	Price    uint64 `toml:"price"`     // asked, grains a GiB; 0 = nothing, and nobody is held back
	MaxPrice uint64 `toml:"max_price"` // paid at most, grains a GiB; 0 = nothing
	// Budget bounds what is signed away in a Period to all servers together,
	// ServerBudget to one, in grains, whatever the tabs hold. A Budget of 0 pays
	// nothing, a ServerBudget of 0 adds no bound.
	Budget       uint64   `toml:"budget"`
	ServerBudget uint64   `toml:"server_budget"`
	Period       Duration `toml:"period"`
	// ClaimWorth is how many times its fee a claim has to bring before it is sent;
	// a tab that closes, or is used up, is claimed as soon as it brings anything.
	// 0 = this node claims nothing by itself.
	ClaimWorth uint64 `toml:"claim_worth"`
}

// LogConfig is read by the command line.
type LogConfig struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text or json
}

// A Duration is a time.Duration written as people do: "1m30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v < 0 {
		err = fmt.Errorf("duration %q is negative", b)
	}
	*d = Duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Defaults returns the settings of node i on this machine: ports of house 3.13
// plus 10·i, everything on loopback.
func Defaults(i int) Config {
	port := func(base int) string { return strconv.Itoa(base + 10*i) }
	return Config{
		Role: RoleStorage,
		P2P: P2PConfig{
			Listen: []string{"/ip4/127.0.0.1/tcp/" + port(24001), "/ip4/127.0.0.1/udp/" + port(24001) + "/quic-v1"},
			DHT:    true,

			ReceiveWindow: DefaultWindow,
		},
		Comet:   CometConfig{Listen: "127.0.0.1:" + port(24002)},
		Gateway: GatewayConfig{Listen: "127.0.0.1:" + port(8080), Deadline: Duration(30 * time.Second)},
		Keeper:  KeeperConfig{TargetReplicas: 4, PreferKnown: true, Parallel: 2, Capacity: 1 << 40, SRDUnits: 4, FetchTimeout: Duration(time.Minute)},
		Cache:   CacheConfig{Memory: 64 << 20, Disk: 1 << 30},
		Bitswap: BitswapConfig{
			Strategy: "enforce", HTTP: HTTPPublic, Server: "lode", Wants: 8192, Lookups: 100_000, PeerLookups: 10_000, SmallBlock: 1024, DontHave: true,
		},
		Collateral: CollateralConfig{Before: Duration(10 * 24 * time.Hour), CA: "processor"},
		Log:        LogConfig{Level: "info", Format: "text"},
		Credit: CreditConfig{
			Price: 1_000_000, MaxPrice: 10_000_000, Budget: uint64(coin.LODE), Period: Duration(24 * time.Hour), ClaimWorth: 20,
		},
	}
}

// Load lays the settings over c: the file Home/lode.toml if there is one, then
// the environment (LODE_P2P_LISTEN for p2p.listen), then flags ("p2p.listen" →
// value; lists are separated by commas). An unknown key in file or flags is an
// error that names it.
func (c Config) Load(path string, environ []string, flags map[string]string) (Config, error) {
	md, err := toml.DecodeFile(path, &c)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("read %s: %w", path, err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		return c, fmt.Errorf("read %s: unknown key %q", path, un[0].String())
	}
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(k, "LODE_") {
			env[k] = v
		}
	}
	fields := map[string]reflect.Value{}
	gather(fields, "", reflect.ValueOf(&c).Elem())
	for _, key := range sortedKeys(fields) {
		name := "LODE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		if v, ok := env[name]; ok {
			if err := assign(fields[key], v); err != nil {
				return c, fmt.Errorf("%s=%q: %w", name, v, err)
			}
		}
	}
	for _, key := range sortedKeys(flags) {
		f, ok := fields[key]
		if !ok {
			return c, fmt.Errorf("unknown setting %q", key)
		}
		if err := assign(f, flags[key]); err != nil {
			return c, fmt.Errorf("setting %s=%q: %w", key, flags[key], err)
		}
	}
	return c, c.validate()
}

// Save writes the settings to path as TOML.
func (c Config) Save(path string) error {
	var b strings.Builder
	if err := toml.NewEncoder(&b).Encode(c); err != nil {
		return fmt.Errorf("save settings: %w", err)
	}
	if err := writeFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("save settings: %w", err)
	}
	return nil
}

// validate checks what needs no disk.
func (c Config) validate() error {
	switch {
	case c.Role != RoleStorage && c.Role != RoleEdge:
		return fmt.Errorf("role %q: want %s or %s", c.Role, RoleStorage, RoleEdge)
	case c.Keeper.TargetReplicas < 1:
		return fmt.Errorf("keeper.target_replicas %d: want at least 1", c.Keeper.TargetReplicas)
	case c.Keeper.Parallel < 1:
		return fmt.Errorf("keeper.parallel %d: want at least 1", c.Keeper.Parallel)
	case c.Keeper.SRDUnits < 0:
		return fmt.Errorf("keeper.srd_units %d: want at least 0", c.Keeper.SRDUnits)
	case c.Keeper.FetchTimeout <= 0:
		return fmt.Errorf("keeper.fetch_timeout %v: want more than 0", time.Duration(c.Keeper.FetchTimeout))
	case c.P2P.ReceiveWindow < WindowMin || c.P2P.ReceiveWindow > WindowMax:
		return fmt.Errorf("p2p.receive_window %d: want %d to %d bytes", c.P2P.ReceiveWindow, WindowMin, WindowMax)
	case c.Gateway.Deadline <= 0:
		return fmt.Errorf("gateway.deadline %v: want more than 0", time.Duration(c.Gateway.Deadline))
	}
	if c.Prove.Socket != "" && len(c.Prove.Disks) > 0 {
		return fmt.Errorf("prover.disks %q: the prover at %s is a process of its own: start it with --disk for each", c.Prove.Disks, c.Prove.Socket)
	}
	for _, d := range c.Prove.Disks {
		if !filepath.IsAbs(d) {
			return fmt.Errorf("prover.disks: %q: want an absolute path", d)
		}
	}
	switch b := c.Bitswap; {
	case b.Server != bitswap.ServerLode && b.Server != bitswap.ServerBoxo:
		return fmt.Errorf("bitswap.server %q: want lode or boxo", b.Server)
	case b.Wants < 1:
		return fmt.Errorf("bitswap.wants %d: want at least 1", b.Wants)
	case b.Lookups < 1 || b.PeerLookups < 1:
		return fmt.Errorf("bitswap.lookups %d, bitswap.peer_lookups %d: want at least 1 a second", b.Lookups, b.PeerLookups)
	}
	if c.Collateral.CA != "processor" && c.Collateral.CA != "platform" {
		return fmt.Errorf("collateral.ca %q: want processor or platform", c.Collateral.CA)
	}
	if e := time.Duration(c.Collateral.Every); e != 0 && e < time.Minute {
		return fmt.Errorf("collateral.every %v: want a minute at least, or 0 for never", e)
	}
	for _, f := range c.Collateral.FMSPCs {
		if b, err := hex.DecodeString(f); err != nil || len(b) != 6 {
			return fmt.Errorf("collateral.fmspcs: %q: want 12 hexadecimal digits", f)
		}
	}
	switch x := c.Credit; {
	case credit.Price(x.Price).Check() != nil:
		return fmt.Errorf("credit.price: %w", credit.Price(x.Price).Check())
	case credit.Price(x.MaxPrice).Check() != nil:
		return fmt.Errorf("credit.max_price: %w", credit.Price(x.MaxPrice).Check())
	case x.Budget > 0 && time.Duration(x.Period) < time.Minute:
		return fmt.Errorf("credit.period %v: want at least 1m", time.Duration(x.Period))
	case x.ClaimWorth > 1_000_000:
		return fmt.Errorf("credit.claim_worth %d: want at most 1000000", x.ClaimWorth)
	}
	switch c.Bitswap.Strategy {
	case "enforce", "observe", "off":
	default:
		return fmt.Errorf("bitswap.strategy %q: want enforce, observe or off", c.Bitswap.Strategy)
	}
	switch c.Bitswap.HTTP {
	case HTTPPublic, HTTPAny, HTTPOff:
	default:
		return fmt.Errorf("bitswap.http %q: want public, any or off", c.Bitswap.HTTP)
	}
	return nil
}

// gather maps the dotted toml name of every setting to its field.
func gather(into map[string]reflect.Value, prefix string, v reflect.Value) {
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("toml")
		if name == "-" {
			continue
		}
		if f := v.Field(i); f.Kind() == reflect.Struct {
			gather(into, prefix+name+".", f)
		} else {
			into[prefix+name] = f
		}
	}
}

// assign parses s into f.
func assign(f reflect.Value, s string) error {
	if d, ok := f.Addr().Interface().(*Duration); ok {
		return d.UnmarshalText([]byte(s))
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(s)
	case reflect.Bool:
		v, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("want true or false")
		}
		f.SetBool(v)
	case reflect.Int:
		v, err := strconv.Atoi(s)
		if err != nil {
			return errors.New("want a whole number")
		}
		f.SetInt(int64(v))
	case reflect.Uint64:
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return errors.New("want a number of bytes")
		}
		f.SetUint(v)
	case reflect.Slice:
		out := []string{}
		for _, p := range strings.Split(s, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
		f.Set(reflect.ValueOf(out))
	default:
		panic("node: setting of kind " + f.Kind().String())
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
