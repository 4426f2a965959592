package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lode-node/lode/node"
)

func openHome(t *testing.T, dir string) *node.Home {
	t.Helper()
	h, err := node.OpenHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestHomeHasOneNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	h := openHome(t, dir)
	if _, err := node.OpenHome(dir); !errors.Is(err, node.ErrHomeInUse) {
		t.Fatalf("second open: got %v, want ErrHomeInUse", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	openHome(t, dir)
}

func TestHomeOfAnotherChainIsRefused(t *testing.T) {
	h := openHome(t, t.TempDir())
	if err := h.Bind("dev-1", []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := h.Bind("dev-1", []byte("a")); err != nil {
		t.Errorf("same chain again: %v", err)
	}
	for _, c := range []struct{ id, genesis string }{{"dev-2", "a"}, {"dev-1", "b"}, {"dev-2", "b"}} {
		err := h.Bind(c.id, []byte(c.genesis))
		if !errors.Is(err, node.ErrOtherChain) || !strings.Contains(err.Error(), "dev-1") {
			t.Errorf("bind %v: got %v, want ErrOtherChain naming dev-1", c, err)
		}
	}
}

func TestKeyIsPrivateAndNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "alice")
	key, err := node.NewKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode: got %04o, want 0600", got)
	}
	again, err := node.LoadKey(path)
	if err != nil || !again.Equals(key) {
		t.Errorf("load: got another key, err %v", err)
	}
	if _, err := node.NewKey(path); err == nil {
		t.Error("a second NewKey replaced the key")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := node.LoadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: got %v, want a refusal that says chmod 600", err)
	}
	if _, err := node.LoadKey(path + "-none"); !errors.Is(err, node.ErrNoHome) {
		t.Errorf("no key: got %v, want ErrNoHome", err)
	}
}

func TestTokenStays(t *testing.T) {
	h := openHome(t, t.TempDir())
	a, err := h.Token()
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Token()
	if err != nil || a != b || len(a) < 32 {
		t.Errorf("tokens: %q then %q, err %v", a, b, err)
	}
	info, err := os.Stat(h.Path("api.token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v, %v, want mode 0600", info, err)
	}
}
