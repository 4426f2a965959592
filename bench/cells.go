package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// both are the clients of most cells.
var both = []string{Lode, Stock}

// even is a link of equal ways, without limit of rate.
func even(rtt time.Duration) Link {
	return Link{Up: Pipe{Delay: rtt / 2}, Down: Pipe{Delay: rtt / 2}}
}

// shaped is a link of a network shape of the field.
func shaped(rtt, jitter time.Duration, up, down int64, loss int) Link {
	return Link{Up: Pipe{Delay: rtt / 2, Jitter: jitter / 2, Rate: up, Loss: loss}, Down: Pipe{Delay: rtt / 2, Jitter: jitter / 2, Rate: down, Loss: loss}}
}

// alike are n honest holders.
func alike(n int, l Link) []HolderSpec {
	hs := make([]HolderSpec, n)
	for i := range hs {
		hs[i].Link = l
	}
	return hs
}

// withBad makes the first n holders bad.
func withBad(hs []HolderSpec, n int, kind string) []HolderSpec {
	hs = slices.Clone(hs)
	for i := range n {
		hs[i].Bad = kind
	}
	return hs
}

// skewed are four holders of which each next one is farther and thinner.
func skewed() []HolderSpec {
	const m = time.Millisecond
	return []HolderSpec{
		{Link: shaped(300*m, 30*m, 20e6, 20e6, 0)}, {Link: shaped(150*m, 15*m, 100e6, 100e6, 0)},
		{Link: shaped(50*m, 5*m, 200e6, 200e6, 0)}, {Link: shaped(10*m, m, 500e6, 500e6, 0)},
	}
}

var badKinds = []string{Silent, Liar, Drip, Corrupt, Dead, Brownout}

// Names of the cells that ratios are taken of.
const (
	cellBlock32K = "block-32K-50ms"
	cellBlock1M  = "block-1M-50ms"
	cellCold     = "block-32K-50ms-cold"
	cellOne256K  = "one-256K-50ms"
	cellOne1M    = "one-1M-50ms"
	cellFour1M   = "four-1M-50ms"
	cellCatFour  = "cat-four-1M-50ms"
	cellClean    = "clean-four-256K-10ms"
	cellReaders0 = "readers-0"
	cellReaders8 = "readers-8"
	cellLoopback = "loopback-256K"
	cellCleanFar = "clean-four-50ms"
	cellCleanCap = "clean-four-100M-50ms" // as the holders of a brown-out
)

// badCell names the cell with a quarter of bad holders that ratios are taken of.
func badCell(kind string) string { return "bad-" + kind + "-1of4-10ms" }

// farCell names a cell with n bad holders of four at 50 ms.
func farCell(kind string, n int) string { return fmt.Sprintf("bad-%s-%dof4-50ms", kind, n) }

// file is a cell that fetches one file whole, from connected holders.
func file(name string, size, leaf int, hs []HolderSpec, rounds int, clients ...string) Cell {
	return Cell{Name: name, Workload: Graph, Size: size, Chunk: leaf, Holders: hs, Connected: true, Rounds: rounds, Clients: clients, Limit: 60, Budget: 28}
}

// within gives a cell the seconds that its rounds take, and some.
func (c Cell) within(seconds float64) Cell {
	c.Budget = seconds
	return c
}

// reading makes a cell one of a reader.
func reading(c Cell) Cell {
	c.Workload = Cat
	return c
}

// quick are the cells of the stable ratios.
func quick() []Cell {
	near, far := even(10*time.Millisecond), even(50*time.Millisecond)
	block := func(name string, size int, connected bool, rounds int) Cell {
		return Cell{Name: name, Workload: Block, Size: size, Chunk: mib, Holders: alike(1, far), Connected: connected, Rounds: rounds, Clients: both, Limit: 30, Budget: 30}
	}
	cells := []Cell{
		block(cellBlock32K, 32*kib, true, 9),
		block(cellBlock1M, mib, true, 5),
		block(cellCold, 32*kib, false, 5),
		file(cellOne256K, 64*mib, 256*kib, alike(1, far), 3, Lode, Stock, Raw).within(45),
		file(cellOne1M, 32*mib, mib, alike(1, far), 3, Lode, Stock, Raw).within(75),
		file(cellFour1M, 64*mib, mib, alike(4, far), 3, Lode, LodeWild, Stock).within(80),
		reading(file(cellCatFour, 64*mib, mib, alike(4, far), 3, Lode, Stock)).within(50),
		file(cellClean, 64*mib, 256*kib, alike(4, near), 5, Lode, Stock),
	}
	for _, kind := range badKinds {
		c := file(badCell(kind), 64*mib, 256*kib, withBad(alike(4, near), 1, kind), 3, Lode, Stock).within(42)
		c.Limit = 10 // boxo's client hangs for 45 s and more
		cells = append(cells, c)
	}
	for _, n := range []int{0, 8} {
		c := file(fmt.Sprintf("readers-%d", n), 16*mib, 256*kib, alike(1, near), 3, Lode, Stock).within(20 + 9*float64(n))
		c.Readers, c.Limit = n, 10
		cells = append(cells, c)
	}
	return append(cells, file(cellLoopback, 64*mib, 256*kib, alike(1, Link{}), 5, Lode, Stock, SHA256))
}

// controls are cells of the quick set in which stock alone shows if the machine
// and the bench are up to their work.
func controls() []Cell {
	rounds := map[string]int{cellBlock32K: 3, cellBlock1M: 3, cellCold: 1, cellOne256K: 1, cellOne1M: 1, cellFour1M: 2}
	var cells []Cell
	for _, c := range quick() {
		if n := rounds[c.Name]; n > 0 {
			c.Name, c.Rounds, c.Clients = "control-"+c.Name, n, []string{Stock}
			cells = append(cells, c)
		}
	}
	return cells
}

// Cells returns the named cells of a set, in the order in which they run. An
// unknown set has none.
func Cells(set string) []Cell {
	switch set {
	case Tiny:
		return tiny()
	case Quick:
		// What the ratios do not need is for the full set: boxo's client, which takes
		// its whole limit where a holder lies or readers do not read, and controls.
		cells := quick()
		for i, c := range cells {
			switch {
			case strings.HasPrefix(c.Name, "bad-"):
				cells[i].Clients = []string{Lode}
			case c.Name == cellReaders8:
				cells[i].Clients, cells[i].Rounds, cells[i].Limit = []string{Lode}, 2, 5
			case c.Name == cellOne256K, c.Name == cellOne1M: // stock is in the controls
				cells[i].Clients = []string{Lode, Raw}
			case c.Name == cellFour1M:
				cells[i].Clients = both
			case c.Name == cellCatFour:
				cells[i].Clients = []string{Lode}
			}
		}
		return cells
	case Full:
		return slices.Concat(widened(quick()), shapes(), bads(), workloads())
	}
	return nil
}

// widened gives the cells of the quick set the rounds and clients for which the
// full set has the time: enough single blocks for a tail, one raw stream as the
// limit of a block, and what the receive window of our node is worth.
func widened(cells []Cell) []Cell {
	for i, c := range cells {
		switch c.Name {
		case cellBlock32K:
			cells[i].Rounds, cells[i].Clients = 20, []string{Lode, Stock, Raw}
		case cellBlock1M:
			cells[i].Rounds, cells[i].Clients = 12, []string{Lode, LodeWild, Narrow, Stock, Raw}
		case cellCold:
			cells[i].Rounds = 12
		case cellOne1M:
			cells[i].Clients = []string{Lode, LodeWild, Narrow, Stock, Raw}
		case cellFour1M:
			cells[i].Clients = []string{Lode, LodeWild, Narrow, NarrowWild, Stock}
		}
	}
	return cells
}

// shapes vary the network and the size.
func shapes() []Cell {
	const m = time.Millisecond
	far := even(50 * m)
	coldFile := file("four-1M-file-cold", mib, 256*kib, alike(4, far), 5, both...)
	coldFile.Connected = false
	quicBlock := Cell{Name: "block-32K-50ms-cold-quic", Workload: Block, Size: 32 * kib, Chunk: mib, Holders: alike(1, far), QUIC: true, Rounds: 5, Clients: both, Limit: 30, Budget: 30}
	quicFile := file("four-256K-50ms-quic", 64*mib, 256*kib, alike(4, far), 3, both...).within(45)
	quicFile.QUIC = true
	return []Cell{
		quicBlock,
		quicFile,
		file("four-1M-file", mib, 256*kib, alike(4, far), 5, both...),
		coldFile,
		file("four-256K-1G", 1024*mib, 256*kib, alike(4, far), 3, both...).within(150),
		reading(file("cat-four-256K-50ms", 64*mib, 256*kib, alike(4, far), 3, both...)).within(48),
		file("four-256K-50ms", 64*mib, 256*kib, alike(4, far), 3, Lode, LodeWild, NarrowWild, Stock).within(45),
		file("sixteen-1M-50ms", 64*mib, mib, alike(16, far), 3, both...),
		file("four-256K-0ms", 64*mib, 256*kib, alike(4, Link{}), 3, both...),
		file("one-256K-150ms", 16*mib, 256*kib, alike(1, even(150*m)), 3, Lode, Stock, Raw),
		file("four-256K-150ms", 64*mib, 256*kib, alike(4, even(150*m)), 3, both...).within(60),
		file("four-1M-150ms", 32*mib, mib, alike(4, even(150*m)), 3, both...).within(70),
		file("shape-metro", 64*mib, 256*kib, alike(4, shaped(10*m, m, 500e6, 500e6, 100)), 3, both...),
		file("shape-cont", 64*mib, 256*kib, alike(4, shaped(50*m, 5*m, 100e6, 100e6, 1000)), 3, both...),
		file("shape-world", 16*mib, 256*kib, alike(4, shaped(150*m, 15*m, 20e6, 100e6, 5000)), 3, both...),
		file("shape-mobile", 8*mib, 256*kib, alike(4, shaped(80*m, 30*m, 5e6, 20e6, 20000)), 3, both...),
		file("skew-four", 64*mib, 256*kib, skewed(), 3, both...),
		reading(file("skew-cat", 32*mib, 256*kib, skewed(), 3, both...)),
		file("skew-sixteen", 64*mib, 256*kib, slices.Concat(skewed(), skewed(), skewed(), skewed()), 3, both...),
	}
}

// bads are the kinds of bad holders, none, a quarter and half of them, at 50 ms.
// Where a link browns out all have a rate, and so a queue.
func bads() []Cell {
	far, capped := even(50*time.Millisecond), shaped(50*time.Millisecond, 0, 100e6, 100e6, 0)
	cells := []Cell{
		file(cellCleanFar, 32*mib, 256*kib, alike(4, far), 3, both...),
		file(cellCleanCap, 32*mib, 256*kib, alike(4, capped), 3, both...),
	}
	for _, kind := range badKinds {
		link := far
		if kind == Brownout {
			link = capped
		}
		for _, n := range []int{1, 2} {
			c := file(farCell(kind, n), 32*mib, 256*kib, withBad(alike(4, link), n, kind), 3, both...).within(40)
			c.Limit = 10
			cells = append(cells, c)
		}
	}
	return cells
}

// workloads are those that are not one file.
func workloads() []Cell {
	far := alike(4, shaped(50*time.Millisecond, 0, 100e6, 100e6, 0))
	cell := func(name, workload string, size int, connected bool, budget float64) Cell {
		return Cell{Name: name, Workload: workload, Size: size, Chunk: 256 * kib, Holders: far, Connected: connected, Rounds: 3, Clients: both, Limit: 60, Budget: budget}
	}
	gone := cell("missing-owed", Gone, mib, false, 45)
	gone.Holders = withBad(far, 4, Liar)
	skew := cell("website-skew", Website, 0, true, 30)
	skew.Holders = skewed()
	return []Cell{
		cell("directory-10k", Directory, dirFiles*4*kib, true, 150),
		cell("website-60", Website, 0, true, 60),
		cell("website-60-cold", Website, 0, false, 30),
		skew,
		cell("video-seek", Video, 64*mib, true, 45),
		cell("video-ranges", Ranges, 64*mib, true, 45),
		cell("zipf-open-loop", Zipf, zipfObjects*512*kib, true, 80),
		cell("cold-1000", Cold, coldRoots*32*kib, false, 60),
		cell("missing-unknown", Missing, mib, false, 60),
		gone,
	}
}

// tiny touches each part once.
func tiny() []Cell {
	near := even(4 * time.Millisecond)
	cold := Cell{Name: "tiny-cold", Workload: Block, Size: 32 * kib, Chunk: mib, Holders: alike(1, near), Rounds: 1, Clients: both, Limit: 10}
	byQUIC := cold
	byQUIC.Name, byQUIC.QUIC, byQUIC.Clients = "tiny-quic", true, []string{Lode}
	cells := []Cell{cold, byQUIC, reading(file("tiny-cat", mib, 256*kib, alike(2, near), 1, both...)), file("tiny-file", 2*mib, 256*kib, alike(2, near), 2, Lode, LodeWild, Stock, Raw, SHA256)}
	for _, kind := range badKinds {
		cells = append(cells, file("tiny-"+kind, mib, 256*kib, withBad(alike(2, near), 1, kind), 1, Lode))
	}
	for i := range cells {
		cells[i].Limit = 10
	}
	return cells
}
