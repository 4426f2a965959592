package bitswap

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A deaf host reaches nobody, and notes when it was tried.
type deaf struct {
	alone
	begun time.Time
	tried []time.Duration
}

func (h *deaf) Network() libnet.Network { return apart{} }

func (h *deaf) Connect(context.Context, peer.AddrInfo) error {
	h.tried = append(h.tried, time.Since(h.begun))
	return errors.New("nobody answers")
}

type apart struct{ nobody }

func (apart) Connectedness(peer.ID) libnet.Connectedness { return libnet.NotConnected }

func TestAHotHolderIsDialledAgainUntilItIsNotWorthIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := clockOnly(t.Context(), t)
		h := &deaf{begun: time.Now()}
		e.cfg.Host = h
		lose := func(p peer.ID) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.cooled(p)
		}
		e.mu.Lock()
		e.warm("a")
		e.mu.Unlock()
		lose("a")
		lose("a") // told twice
		lose("b") // never gave anything
		time.Sleep(10 * time.Second)
		want := []time.Duration{time.Second, 3 * time.Second, 7 * time.Second}
		if !slices.Equal(h.tried, want) {
			t.Errorf("dialled after %v, want %v", h.tried, want)
		}
		e.mu.Lock()
		e.warm("a") // it came by itself, and gave a block
		e.mu.Unlock()
		time.Sleep(10 * time.Minute)
		if len(h.tried) != len(want)+hotTries+1 { // one was due
			t.Errorf("dialled after %v, want %d times more", h.tried, hotTries+1)
		}
		if e.hot.Contains("a") {
			t.Error("a peer that was dialled in vain is still kept")
		}
		e.end()
	})
}
