package bench

import (
	"errors"
	"net"
	"net/netip"
)

// overhead is what a datagram takes of the rate besides its payload: the
// headers of IPv4 and UDP.
const overhead = 28

// clients is how many fetchers a UDP port tells apart; what comes from more is
// dropped.
const clients = 1024

// listenUDP relays from a port of its own to target. Each fetcher gets a socket
// of its own towards the holder, so that the holder sees one peer for each.
func (p *patch) listenUDP(target string) (net.Addr, error) {
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		return nil, err
	}
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	wide(front)
	p.fronts = append(p.fronts, front)
	p.wg.Go(func() {
		backs := map[netip.AddrPort]*net.UDPConn{}
		defer func() {
			for _, b := range backs {
				b.Close()
			}
		}()
		buf := make([]byte, parcel)
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // news of an earlier packet that nobody wanted
				continue
			}
			back, ok := backs[from]
			if !ok && len(backs) < clients {
				if back, err = net.DialUDP("udp", nil, to); err != nil {
					continue
				}
				wide(back)
				backs[from] = back
				p.wg.Go(func() { p.answer(front, back, from) })
			}
			if back != nil {
				p.toss(up, buf[:n], func(b []byte) { back.Write(b) })
			}
		}
	})
	return front.LocalAddr(), nil
}

// answer relays from the holder to one fetcher until back is closed.
func (p *patch) answer(front, back *net.UDPConn, to netip.AddrPort) {
	buf := make([]byte, parcel)
	for {
		n, err := back.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.toss(down, buf[:n], func(b []byte) { front.WriteToUDPAddrPort(b, to) })
	}
}

// toss puts a datagram in. Whether it can be delivered when it comes out nobody
// is told, as on any network.
func (p *patch) toss(way int, b []byte, deliver func([]byte)) {
	due, s, ok := p.datagram(way, len(b)+overhead)
	if !ok {
		return
	}
	data, free := p.r.pool.copy(b)
	p.deliver(p.r.clock, due, s, func() { deliver(data); free() })
}

// wide lets a socket hold what comes while this process does something else; the
// system may give less than is asked for.
func wide(c *net.UDPConn) {
	c.SetReadBuffer(4 << 20)
	c.SetWriteBuffer(4 << 20)
}
