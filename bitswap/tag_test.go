package bitswap

import (
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"

	"github.com/lode-node/lode/credit"
)

// The connection manager keeps whom the books value: who serves above strangers,
// who fails below, by the numbers that choose and serve.
func TestConnectionsAreTaggedByTheBooks(t *testing.T) { // spec §7.2, §7.4
	cm, err := connmgr.NewConnManager(10, 20)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ConnectionManager(cm), libp2p.DisableMetrics(), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	e, err := New(t.Context(), Config{Host: h, Blocks: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	now := time.Now().Unix()
	served := credit.Event{Kind: credit.Served, Duty: true, Bytes: 64 << 20, At: now}
	for range 20 {
		e.ledger.apply("serves", served)
		e.ledger.apply("fails", credit.Event{Kind: credit.Corrupt, Duty: true, At: now})
	}
	// What is booked first within a second is told; the rest was in the books by then.
	e.book("serves", served)
	e.book("fails", credit.Event{Kind: credit.Corrupt, Duty: true, At: now})
	e.book("took", credit.Event{Kind: credit.Sent, Bytes: 1, At: now})
	told := map[peer.ID]int{}
	for _, p := range []peer.ID{"serves", "fails", "took"} {
		info := cm.GetTagInfo(p)
		if info == nil {
			t.Fatalf("of %q the connection manager was told nothing", string(p))
		}
		if told[p] = info.Tags[connTag]; told[p] != e.worth(p) {
			t.Errorf("%q is tagged %d, and worth %d", string(p), told[p], e.worth(p))
		}
	}
	if told["serves"] <= told["took"] || told["took"] <= told["fails"] {
		t.Errorf("tags are %v; want who serves above a stranger, and who fails below", told)
	}
}
