package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// daemonNotes tell how the daemons are set.
var daemonNotes = map[string]string{
	Kubo: "a daemon of its own for each fetch, with the profiles test and autoconf-off, no swarm listener, no HTTP retrieval, nothing provided; routing is HTTP only, by this process, which names all holders; " +
		"from the servers of stock; block/get, pin/add or cat by its API, websites by its gateway; blocks in flatfs on disk",
	Rainbow: "a daemon of its own for each fetch, without DHT, bootstrap, autoconf, DNSLink and HTTP retrieval; routing is HTTP only, by this process, which names all holders, who where a cell is connected are its peering peers; " +
		"from the servers of stock; raw block, file (also where others fetch a whole graph) or website by its gateway; blocks in flatfs on disk",
}

// version asks a daemon's binary who it is.
func version(ctx context.Context, client, path string) (string, error) {
	arg := "version"
	if client == Rainbow {
		arg = "--version"
	}
	out, err := exec.CommandContext(ctx, path, arg).Output()
	if err != nil {
		return "", fmt.Errorf("bench: %s=%s: %w: want the path of its binary", strings.ToUpper(client), path, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// setUp writes the configuration of an ipfs repository: its own, with ours over it.
func setUp(path string, router string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var cfg map[string]any
	if err := json.Unmarshal(b, &cfg); err != nil {
		return err
	}
	for section, values := range map[string]map[string]any{
		"Routing":       {"Type": "delegated", "DelegatedRouters": []string{router}},
		"Addresses":     {"Swarm": []string{}},
		"HTTPRetrieval": {"Enabled": false},
		"Provide":       {"Enabled": false},
	} {
		s, ok := cfg[section].(map[string]any)
		if !ok {
			s = map[string]any{}
		}
		for k, v := range values {
			s[k] = v
		}
		cfg[section] = s
	}
	cfg["Bootstrap"] = []string{}
	if b, err = json.Marshal(cfg); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// address reads one that the daemon wrote to a file of its repository, as the
// URL it means.
func address(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if strings.HasPrefix(s, "http://") {
		return strings.TrimSuffix(s, "/"), nil
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return "", err
	}
	_, at, err := manet.DialArgs(a)
	return "http://" + at, err
}

// kubo starts an ipfs daemon in d's directory, which is to connect to some first.
func kubo(ctx context.Context, d *daemon, path, router string, connect []peer.AddrInfo) error {
	env := []string{"IPFS_PATH=" + d.dir, "IPFS_TELEMETRY=off"}
	init := exec.CommandContext(ctx, path, "init", "--profile=test,autoconf-off")
	init.Env = append(os.Environ(), env...)
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("%s init: %w:\n%s", path, err, out)
	}
	if err := setUp(filepath.Join(d.dir, "config"), router); err != nil {
		return err
	}
	if err := d.start(ctx, "Daemon is ready", env, path, "daemon"); err != nil {
		return err
	}
	api, err := address(filepath.Join(d.dir, "api"))
	if err != nil {
		return err
	}
	if d.gateway, err = address(filepath.Join(d.dir, "gateway")); err != nil {
		return err
	}
	d.ask = func(workload, c string) (string, string) {
		call := map[string]string{Block: "block/get", Missing: "block/get", Graph: "pin/add", Cat: "cat"}[workload]
		return http.MethodPost, api + "/api/v0/" + call + "?arg=" + c
	}
	for _, p := range connect {
		arg := url.QueryEscape(p.Addrs[0].String() + "/p2p/" + p.ID.String())
		if _, err := d.call(ctx, http.MethodPost, api+"/api/v0/swarm/connect?arg="+arg, nil); err != nil {
			return fmt.Errorf("connect to %v: %w", p.ID, err)
		}
	}
	return nil
}

// rainbow starts a rainbow daemon in d's directory, which is to connect to some
// and stay so.
func rainbow(ctx context.Context, d *daemon, path, router string, connect []peer.AddrInfo) error {
	var listen [2]string
	for i := range listen {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		listen[i] = l.Addr().String()
		if err := l.Close(); err != nil {
			return err
		}
	}
	env := []string{
		"RAINBOW_DATADIR=" + d.dir, "RAINBOW_GATEWAY_LISTEN_ADDRESS=" + listen[0], "RAINBOW_CTL_LISTEN_ADDRESS=" + listen[1],
		"RAINBOW_DHT_ROUTING=off", "RAINBOW_HTTP_ROUTERS=" + router, "RAINBOW_BOOTSTRAP=",
		"RAINBOW_AUTOCONF=false", "RAINBOW_DNSLINK_RESOLVERS=", "RAINBOW_HTTP_RETRIEVAL_ENABLE=false", "RAINBOW_LIBP2P_LISTEN_ADDRS=/ip4/127.0.0.1/tcp/0",
	}
	if len(connect) > 0 { // an empty list is an error
		var peers []string
		for _, p := range connect {
			peers = append(peers, p.Addrs[0].String()+"/p2p/"+p.ID.String())
		}
		env = append(env, "RAINBOW_PEERING="+strings.Join(peers, ","))
	}
	d.gateway = "http://" + listen[0]
	d.ask = func(workload, c string) (string, string) {
		format := map[string]string{Block: "?format=raw", Missing: "?format=raw"}[workload] // a CAR it walks block by block
		return http.MethodGet, d.gateway + "/ipfs/" + c + format
	}
	if err := d.start(ctx, "CTL endpoint listening", env, path); err != nil {
		return err
	}
	return d.answers(ctx, listen[0])
}

// errEnded is that of a daemon that nobody ended.
var errEnded = errors.New("ended by itself")
