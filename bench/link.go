package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// A link is a TCP relay that holds back what it carries for a while, each way.
// It limits neither bandwidth nor what is under way.
type link struct {
	addrs  []ma.Multiaddr
	l      net.Listener
	to     string
	delay  time.Duration
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// newLink relays from a port of its own to the address to.
func newLink(to ma.Multiaddr, delay time.Duration) (*link, error) {
	_, target, err := manet.DialArgs(to)
	if err != nil {
		return nil, fmt.Errorf("bench: link to %v: %w", to, err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("bench: link: %w", err)
	}
	addr, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	k := &link{addrs: []ma.Multiaddr{addr}, l: l, to: target, delay: max(delay, 0)}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.wg.Add(1)
	go k.accept()
	return k, nil
}

// Close cuts all connections, and returns when nothing runs any more.
func (k *link) Close() error {
	k.cancel()
	err := k.l.Close()
	k.wg.Wait()
	return err
}

func (k *link) accept() {
	defer k.wg.Done()
	for {
		in, err := k.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp4", k.to)
		if err != nil {
			in.Close()
			continue
		}
		cut := context.AfterFunc(k.ctx, func() { in.Close(); out.Close() })
		var both sync.WaitGroup
		both.Go(func() { k.carry(out, in) })
		both.Go(func() { k.carry(in, out) })
		k.wg.Go(func() { both.Wait(); cut(); in.Close(); out.Close() })
	}
}

// A parcel is due at the other end at a time.
type parcel struct {
	data []byte
	due  time.Time
}

// carry copies from src to dst, late. Either end closing ends both ways.
func (k *link) carry(dst io.WriteCloser, src io.ReadCloser) {
	way := make(chan parcel, 1<<14)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(way)
		for {
			buf := make([]byte, 32<<10)
			n, err := src.Read(buf)
			if n > 0 {
				way <- parcel{buf[:n], time.Now().Add(k.delay)}
			}
			if err != nil {
				return
			}
		}
	})
	broken := false
	for p := range way {
		if d := time.Until(p.due); d > 0 && !broken {
			select {
			case <-time.After(d):
			case <-k.ctx.Done():
				broken = true
			}
		}
		if !broken {
			if _, err := dst.Write(p.data); err != nil {
				broken = true
				src.Close() // ends the reader; what is under way is drained
			}
		}
	}
	dst.Close()
	reader.Wait()
}
