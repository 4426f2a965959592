package node_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/node"
)

func TestSettingsComeFromFlagsEnvFileDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lode.toml")
	text := "role = 'edge'\n[p2p]\nlisten = ['/ip4/127.0.0.1/tcp/1']\n[keeper]\ntarget_replicas = 3\nparallel = 5\nfetch_timeout = '7s'\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := node.Defaults(2).Load(path,
		[]string{"LODE_KEEPER_PARALLEL=6", "LODE_P2P_LISTEN=/ip4/127.0.0.1/tcp/2, /ip4/127.0.0.1/tcp/3", "HOME=/x", "LODE_HOME=/y"},
		map[string]string{"keeper.parallel": "7"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Keeper.Parallel != 7 || c.Keeper.TargetReplicas != 3 || c.Role != node.RoleEdge {
		t.Errorf("got parallel %d, target %d, role %s, want 7 (flag), 3 (file), edge (file)", c.Keeper.Parallel, c.Keeper.TargetReplicas, c.Role)
	}
	if want := []string{"/ip4/127.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/3"}; !reflect.DeepEqual(c.P2P.Listen, want) {
		t.Errorf("p2p.listen: got %q, want %q (env)", c.P2P.Listen, want)
	}
	if got := time.Duration(c.Keeper.FetchTimeout); got != 7*time.Second {
		t.Errorf("fetch_timeout: got %v, want 7s", got)
	}
	if c.Gateway.Listen != "127.0.0.1:8100" {
		t.Errorf("gateway.listen of node 2: got %s, want port 8080+20 (default)", c.Gateway.Listen)
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	for _, c := range []struct {
		file, env, flag, value, want string
	}{
		{file: "[keeper]\ntarget = 3\n", want: "keeper.target"},
		{file: "rule = 'edge'\n", want: "rule"},
		{file: "role = 'king'\n", want: "king"},
		{env: "LODE_KEEPER_PARALLEL=two", want: "LODE_KEEPER_PARALLEL"},
		{flag: "keeper.colour", value: "red", want: "keeper.colour"},
		{flag: "keeper.parallel", value: "0", want: "keeper.parallel 0"},
		{flag: "bitswap.strategy", value: "best", want: "best"},
		{flag: "bitswap.server", value: "nginx", want: "nginx"},
		{flag: "bitswap.wants", value: "0", want: "bitswap.wants 0"},
		{flag: "bitswap.peer_lookups", value: "0", want: "bitswap.peer_lookups 0"},
		{flag: "gateway.deadline", value: "-1s", want: "negative"},
		{flag: "bitswap.http", value: "yes", want: "bitswap.http \"yes\""},
		{flag: "p2p.receive_window", value: "1000", want: "p2p.receive_window 1000"},
		{flag: "cache.disk", value: "-1", want: "number of bytes"},
		{flag: "prover.disks", value: "sealed2", want: "absolute"},
		{file: "[prover]\nsocket = 's'\n", flag: "prover.disks", value: "/mnt/a", want: "--disk"},
	} {
		path := filepath.Join(t.TempDir(), "lode.toml")
		if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := map[string]string{}
		if c.flag != "" {
			flags[c.flag] = c.value
		}
		_, err := node.Defaults(0).Load(path, []string{c.env}, flags)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want an error that names %q", c, err, c.want)
		}
	}
}

func TestSavedSettingsLoadTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lode.toml")
	want := node.Defaults(3)
	want.Keeper.Capacity = 12345
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := node.Defaults(0).Load(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Lists that were empty come back empty rather than nil.
	for _, l := range []*[]string{&got.P2P.Announce, &got.P2P.Bootstrap, &got.Comet.Peers, &got.Bitswap.Delegated, &got.Prove.Disks} {
		if len(*l) == 0 {
			*l = nil
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
