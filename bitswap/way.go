package bitswap

import (
	"context"
	"io"
	"time"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// bitswapIDs are the versions that we speak, the best first.
var bitswapIDs = []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}

// twoWay is Bitswap 1.2.0 on streams that are read at both ends (spec §6.4): who
// is asked on one may answer on it. Whoever opens a stream says in its first
// packet how much may be sent on it, so an answer of the size of its receive
// window takes one round trip; a stream that the server opens starts with what
// every host has, 256 KiB over TCP, and learns of more a round trip later.
const twoWay protocol.ID = "/lode/bitswap/1.2.0"

// askIDs are the protocols that we ask by, the best first.
var askIDs = append([]protocol.ID{twoWay}, bitswapIDs...)

// onConnection has a stream opened over a connection that is there.
func onConnection(ctx context.Context) context.Context {
	return libnet.WithNoDial(ctx, "bitswap dials by itself")
}

// openAs opens a stream to p and takes for granted that p speaks id: it waits
// neither for the negotiation nor, as hosts do, for identify, which on a fresh
// connection is a round trip of its own. If p does not speak it, reading fails
// with multistream.ErrNotSupported.
func openAs(ctx context.Context, h host.Host, p peer.ID, id protocol.ID) (libnet.Stream, error) {
	s, err := h.Network().NewStream(onConnection(ctx), p)
	if err != nil {
		return nil, err
	}
	if err := s.SetProtocol(id); err != nil {
		_ = s.Reset() // it is of no use either way
		return nil, err
	}
	return &eager{Stream: s, rw: multistream.NewMSSelect(s, id)}, nil
}

// An eager stream negotiates with its first bytes.
type eager struct {
	libnet.Stream
	rw io.ReadWriteCloser
}

// Read is as that of the stream.
func (s *eager) Read(b []byte) (int, error) { return s.rw.Read(b) }

// Write is as that of the stream.
func (s *eager) Write(b []byte) (int, error) { return s.rw.Write(b) }

// Close ends the stream after the negotiation, or a while.
func (s *eager) Close() error {
	_ = s.SetReadDeadline(time.Now().Add(openWait)) // a stream that is gone needs none
	return s.rw.Close()
}

// openWant opens the stream on which p is told what we want: by the best protocol
// that p is known to speak, or while nothing is known by the one that all speak.
// sure has it negotiated.
func (e *Exchange) openWant(ctx context.Context, p peer.ID, sure bool) (libnet.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	if sure {
		return e.ear.NewStream(onConnection(ctx), p, bitswapIDs...)
	}
	id := bsnet.ProtocolBitswap
	if known, err := e.ear.Peerstore().SupportsProtocols(p, askIDs...); err == nil && len(known) > 0 {
		id = known[0]
	}
	return openAs(ctx, e.ear, p, id)
}

// openReply opens the way back to p over its connection: a stream that p reads, if
// it opened one, else one of our own, by the protocol on which p asks. So nothing
// is waited for, and the first message goes with the stream's first packet.
func (e *Exchange) openReply(ctx context.Context, p peer.ID) (sink, error) {
	s := e.heard.of(p)
	switch {
	case s == nil:
		return e.ear.NewStream(onConnection(ctx), p, bitswapIDs...)
	case s.Protocol() != twoWay:
		return openAs(ctx, e.ear, p, s.Protocol())
	case e.cfg.Serve.StreamPerMessage:
		return openAs(ctx, e.ear, p, bsnet.ProtocolBitswap)
	}
	return answering{s, &e.heard}, nil
}

// An answering stream is one that a peer opened, and on which we answer.
type answering struct {
	libnet.Stream
	x *streams
}

// Reset ends the stream; no answer goes by it any more.
func (s answering) Reset() error {
	s.x.left(s.Stream)
	return s.Stream.Reset()
}
