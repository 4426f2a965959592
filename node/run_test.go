package node

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/chain"
)

// Addresses of a private network are not announced where the chain refuses them.
func TestReachable(t *testing.T) {
	var all []ma.Multiaddr
	for _, s := range []string{"/ip4/127.0.0.1/tcp/24001", "/ip4/10.1.2.3/tcp/24001", "/ip4/8.8.8.8/udp/24001/quic-v1", "/ip6/::1/tcp/24001", "/dns4/example.org/tcp/24001"} {
		all = append(all, ma.StringCast(s))
	}
	for class, want := range map[string][]ma.Multiaddr{
		chain.ClassDev: all, chain.ClassTest: all, chain.ClassMain: {all[2], all[4]},
	} {
		got := reachable(class, all)
		if !slices.EqualFunc(got, want, func(a, b ma.Multiaddr) bool { return a.Equal(b) }) {
			t.Errorf("%s: got %v, want %v", class, got, want)
		}
	}
}

// A database that cannot write its log ends the process: a disk almost full is
// an error before that.
func TestDiskLeavesRoom(t *testing.T) {
	d, err := OpenDisk(t.Context(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	free := uint64(blocksReserve - 1)
	d.free = func() (uint64, error) { return free, nil }
	b := blocks.NewBlock([]byte("one"))
	if err := d.Put(t.Context(), b); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "255 MiB are free on the disk of "+d.dir) {
		t.Errorf("with %d bytes free: %v, want ENOSPC and the disk", free, err)
	}
	if ok, err := d.Has(t.Context(), b.Cid()); ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	free++
	if err := d.Put(t.Context(), b); err != nil {
		t.Errorf("with %d bytes free: %v", free, err)
	}
}
