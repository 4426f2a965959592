package bitswap

import (
	"context"
	"errors"
	"slices"
	"sync"
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

	mu    sync.Mutex // guards the field below
	tried []time.Duration
}

func (h *deaf) Network() libnet.Network { return apart{} }

func (h *deaf) Connect(context.Context, peer.AddrInfo) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried = append(h.tried, time.Since(h.begun))
	return errors.New("nobody answers")
}

func (h *deaf) dials() []time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.tried)
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
		if got := h.dials(); !slices.Equal(got, want) {
			t.Errorf("dialled after %v, want %v", got, want)
		}
		e.mu.Lock()
		e.warm("a") // it came by itself, and gave a block
		e.mu.Unlock()
		time.Sleep(10 * time.Minute)
		if got := h.dials(); len(got) != len(want)+hotTries+1 { // one was due
			t.Errorf("dialled after %v, want %d times more", got, hotTries+1)
		}
		e.mu.Lock()
		if e.hot.Contains("a") {
			t.Error("a peer that was dialled in vain is still kept")
		}
		e.mu.Unlock()
		e.end()
	})
}
