package chain_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
)

// A place is where one node lives, enough to start it in a process of its own.
type place struct {
	Home, Listen string
	Key          []byte
	Peers        []string
	id           chain.CometID
	account      peer.ID
}

func (p place) key(t testing.TB) crypto.PrivKey {
	t.Helper()
	k, err := crypto.UnmarshalPrivateKey(p.Key)
	must(t, err)
	return k
}

// A cometNet is a devnet on loopback, each node with a home of its own.
type cometNet struct {
	genesis  chain.Genesis
	places   []place
	protocol uint64 // that children say they know; 0: the build's
}

// newCometNet prepares homes for validators with equal bonds, and a genesis
// that names them. others get a home and know the validators.
func newCometNet(t testing.TB, validators, others int) *cometNet {
	t.Helper()
	params, err := chain.Preset(chain.ClassDev)
	must(t, err)
	params = params.WithSlots(4, 3) // an era, with its validator updates, every 12 blocks
	params.BlockTime = 150
	n := &cometNet{genesis: chain.Genesis{
		ChainID: "dev-comet", Class: chain.ClassDev, Time: time.Now().Add(-time.Second).UTC().Truncate(time.Millisecond), Params: params,
	}}
	ports := freePorts(t, validators+others)
	var peers []string
	for i := range validators + others {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		must(t, err)
		raw, err := crypto.MarshalPrivateKey(key)
		must(t, err)
		p := place{Home: t.TempDir(), Key: raw, Listen: fmt.Sprintf("127.0.0.1:%d", ports[i])}
		p.account, err = peer.IDFromPrivateKey(key)
		must(t, err)
		p.id, err = chain.InitComet(p.Home, key)
		must(t, err)
		n.places = append(n.places, p)
		n.genesis.Accounts = append(n.genesis.Accounts, chain.GenesisAccount{ID: p.account, Free: 1000 * coin.LODE})
		if i < validators {
			peers = append(peers, p.id.Peer+"@"+p.Listen)
			n.genesis.Validators = append(n.genesis.Validators, chain.GenesisValidator{
				ID: p.account, ConsensusKey: p.id.Consensus, Bond: 100 * coin.LODE,
			})
		}
	}
	for i := range n.places {
		n.places[i].Peers = peers
	}
	return n
}

func (n *cometNet) config(t testing.TB, i int) chain.CometConfig {
	p := n.places[i]
	return chain.CometConfig{Home: p.Home, Genesis: n.genesis, Key: p.key(t), Listen: p.Listen, Peers: p.Peers, Audit: true}
}

// A running node stops at the end of the test, if not before.
type running struct {
	*chain.Comet
	ran chan error
}

func run(t testing.TB, c chain.CometConfig) *running {
	t.Helper()
	n, err := chain.NewComet(c)
	must(t, err)
	r := &running{Comet: n, ran: make(chan error, 1)}
	go func() { r.ran <- n.Run(context.Background()) }()
	t.Cleanup(func() { n.Close() })
	return r
}

// stop ends the node and checks that it ended well and in time. It must not be
// run again among others in this process: CometBFT forgets to close a connection
// that comes in while it stops, which only the end of a process makes up for.
func (r *running) stop(t testing.TB) {
	t.Helper()
	began := time.Now()
	must(t, r.Close())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v, want less than 5 s", took)
	}
	if err := <-r.ran; err != nil {
		t.Errorf("Run ended with %v, want nil after Close", err)
	}
}

// reach reads blocks until one is at height or above and returns it.
func reach(t testing.TB, c *running, height int64) chain.Block {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, err := c.Next(ctx, height-1)
	if err != nil {
		t.Fatalf("reach height %d: %v; status %+v", height, err, c.Status())
	}
	return b
}

// agree checks that all nodes have the same block at height, and so the same
// app hash below it.
func agree(t testing.TB, height int64, nodes ...*running) [32]byte {
	t.Helper()
	want := reach(t, nodes[0], height)
	for i, n := range nodes {
		if b := reach(t, n, height); b.Height != want.Height || b.Hash != want.Hash {
			t.Errorf("node %d at height %d has block %x, node 0 has %x at %d", i, b.Height, b.Hash, want.Hash, want.Height)
		}
	}
	return want.Hash
}

func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var held []net.Listener
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		held, ports = append(held, l), append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range held {
		must(t, l.Close())
	}
	return ports
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const childEnv = "LODE_TEST_COMET_CHILD"

// TestMain is also the node of a child process, which tells each block that it
// commits in a line until it is killed.
func TestMain(m *testing.M) {
	if file := os.Getenv(childEnv); file != "" {
		go func() { // the end of input is the end of the parent, however it came
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
		fmt.Fprintln(os.Stderr, "child:", child(file))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// childJob is what a child reads from its file.
type childJob struct {
	Place    place
	Genesis  chain.Genesis
	Protocol uint64
}

func child(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var job childJob
	if err := json.Unmarshal(b, &job); err != nil {
		return err
	}
	key, err := crypto.UnmarshalPrivateKey(job.Place.Key)
	if err != nil {
		return err
	}
	n, err := chain.NewComet(chain.CometConfig{
		Home: job.Place.Home, Genesis: job.Genesis, Key: key, Listen: job.Place.Listen, Peers: job.Place.Peers, Audit: true,
		Protocol: job.Protocol,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- n.Run(ctx) }()
	for height := n.Status().Height; ; {
		b, err := n.Next(context.Background(), height)
		if ctx.Err() != nil {
			if err := errors.Join(<-ran, n.Close()); err != nil {
				return err
			}
			os.Exit(0)
		}
		if err != nil {
			return errors.Join(err, <-ran)
		}
		height = b.Height
		fmt.Printf("block %d %x\n", b.Height, b.Hash)
	}
}

// A process is a child that runs one node.
type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// spawn starts place i in a process of its own; env are like "NAME=value".
func (n *cometNet) spawn(t testing.TB, i int, env ...string) *process {
	t.Helper()
	b, err := json.Marshal(childJob{n.places[i], n.genesis, n.protocol})
	must(t, err)
	file := filepath.Join(n.places[i].Home, "child.json")
	must(t, os.WriteFile(file, b, 0o600))
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(append(os.Environ(), childEnv+"="+file), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	_, err = cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &process{cmd: cmd, lines: bufio.NewScanner(out)}
	t.Cleanup(func() { p.kill() })
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // an error is what a killed process has
}

// stop ends the process as an operator does.
func (p *process) stop(t testing.TB) {
	t.Helper()
	began := time.Now()
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	for ok := true; ok; {
		_, _, ok = p.block()
	}
	must(t, p.cmd.Wait())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the process took %v to stop, want less than 5 s", took)
	}
}

// block reads the child's next block, its hash in hex; false when it has ended.
func (p *process) block() (height int64, hash string, ok bool) {
	for p.lines.Scan() {
		if _, err := fmt.Sscanf(p.lines.Text(), "block %d %s", &height, &hash); err == nil {
			return height, hash, true
		}
	}
	return 0, "", false
}

// reach reads the child's blocks up to height and returns that one's hash.
func (p *process) reach(t testing.TB, height int64) string {
	t.Helper()
	for {
		h, hash, ok := p.block()
		if !ok {
			t.Fatalf("child ended before height %d", height)
		}
		if h >= height {
			return hash
		}
	}
}
