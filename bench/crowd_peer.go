package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-multistream"
)

// A light peer is a connection that speaks Bitswap, and nothing else.
type light struct {
	id   peer.ID
	via  transport.Transport
	mute bool
	conn transport.CapableConn
	out  network.MuxedStream
	wg   sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	wanted  uint64     // blocks
	got     uint64     // bytes
	since   time.Time  // of asking first, or of the last bytes; zero before
	first   time.Duration
	worst   time.Duration
	stopped bool
}

// newLight returns a peer of a new identity.
func newLight(mute bool) (*light, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	n, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{n}, muxers, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	t, err := tcp.NewTCPTransport(up, nil, nil, tcp.DisableReuseport())
	if err != nil {
		return nil, err
	}
	return &light{id: id, via: t, mute: mute}, nil
}

// connect connects p and opens the stream of its wants.
func (p *light) connect(ctx context.Context, to peer.AddrInfo) (err error) {
	if p.conn, err = p.via.Dial(ctx, to.Addrs[0], to.ID); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	p.wg.Go(p.accept)
	if p.out, err = p.conn.OpenStream(ctx); err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	if err := multistream.SelectProtoOrFail(bsnet.ProtocolBitswap, p.out); err != nil {
		return fmt.Errorf("speak %s: %w", bsnet.ProtocolBitswap, err)
	}
	return nil
}

// accept takes streams until the connection ends. What is not Bitswap is refused.
func (p *light) accept() {
	speaks := multistream.NewMultistreamMuxer[protocol.ID]()
	speaks.AddHandler(bsnet.ProtocolBitswap, nil)
	for {
		s, err := p.conn.AcceptStream()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			if _, _, err := speaks.Negotiate(s); err != nil {
				_ = s.Reset() // it is of no use either way
				return
			}
			if !p.mute {
				p.read(s)
			}
		})
	}
}

// read counts what comes.
func (p *light) read(s network.MuxedStream) {
	buf := make([]byte, 16<<10)
	for {
		n, err := s.Read(buf)
		if n > 0 {
			p.heard(n)
		}
		if err != nil {
			return
		}
	}
}

func (p *light) heard(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.since.IsZero() {
		return
	}
	now := time.Now()
	took := now.Sub(p.since)
	if p.got == 0 {
		p.first = took
	}
	p.worst, p.since = max(p.worst, took), now
	p.got += uint64(n)
}

// ask wants n more blocks that nobody else wants.
func (p *light) ask(who uint64, n int) error {
	msg := bsmsg.New(false)
	p.mu.Lock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
	for range n {
		p.wanted++
		msg.AddEntry(numbered(who, p.wanted), int32(-p.wanted), pb.Message_Wantlist_Block, false)
	}
	p.mu.Unlock()
	if err := p.out.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	return msg.ToNetV1(p.out)
}

// numbered is the CID of block n of peer who.
func numbered(who, n uint64) cid.Cid {
	h, err := multihash.Encode(fmt.Appendf(nil, "%012d %019d", who, n), multihash.SHA2_256)
	if err != nil {
		panic(err) // 32 bytes are a digest of that kind
	}
	return cid.NewCidV1(cid.Raw, h)
}

// stop ends the counting. Who got nothing has waited until now.
func (p *light) stop(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.since.IsZero() {
		return
	}
	took := now.Sub(p.since)
	if p.got == 0 {
		p.first = took
	}
	p.worst = max(p.worst, took)
}

// close ends the connection and returns when nothing runs on it.
func (p *light) close() error {
	if p.conn == nil {
		return nil
	}
	err := p.conn.Close()
	p.wg.Wait()
	if errors.Is(err, network.ErrReset) {
		return nil
	}
	return err
}
