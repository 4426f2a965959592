// Command prover is a node's prover as a process of its own: inside an SGX
// enclave when it is built with ego-go and the tag ego, and otherwise only as
// a simulation that protects nothing.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

const usage = `Usage: prover --dir DIR --socket PATH [--disk DIR]... [--take DIR]... [--class main|test|dev] [--srd-unit BYTES] [--srd-leaf BYTES]
              [--simulate [--build NAME] [--release-keys N:HEX,...]]
       prover --dir DIR --start-over [--disk DIR]... [--simulate]
       prover --dir DIR --forget-disk ID [--disk DIR]... [--simulate]

Holds sealed files under DIR, and under each further --disk, and answers a Lode node on the Unix socket PATH.
The sizes of sealed random data are those of the network's class, unless given.

--take names the directories of another build of the prover on this machine, which hands over to this one
('lode prover upgrade'). A build with a release key or more takes and gives on the word of N of them; one for SGX has them
compiled in (RELEASE_KEYS of make enclave), and only a simulated one can be told its keys and its name.

--start-over gives up a sealed state that cannot be opened: the old state is set aside, what was sealed under it
is taken away, and the next start makes a fresh key. --forget-disk strikes a disk off that is gone for good: what
it held counts as lost. Both end at once, and neither does anything while the prover runs.

Without SGX it starts only with --simulate, and then it protects nothing: only
networks of class dev accept what it says.
`

// Exit codes: 0 after a signal, 1 when it fails, 2 on bad flags.
func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup wants us to go on
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prover:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

var errUsage = errors.New("see prover --help")

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("prover", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	var disks, take words
	dir := flags.String("dir", "", "")
	socket := flags.String("socket", "", "")
	class := flags.String("class", "dev", "")
	simulate := flags.Bool("simulate", false, "")
	unit := flags.Uint64("srd-unit", 0, "")
	leaf := flags.Uint64("srd-leaf", 0, "")
	over := flags.Bool("start-over", false, "")
	forget := flags.String("forget-disk", "", "")
	build := flags.String("build", "", "")
	keys := flags.String("release-keys", "", "")
	flags.Var(&disks, "disk", "")
	flags.Var(&take, "take", "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if *dir == "" || flags.NArg() > 0 {
		return fmt.Errorf("want --dir and no other words: %w", errUsage)
	}
	repair := *over || *forget != ""
	if (*socket == "") != repair || *over && *forget != "" {
		return fmt.Errorf("want one of --socket, --start-over and --forget-disk: %w", errUsage)
	}
	params, err := mpow.Preset(*class)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if *unit != 0 {
		params.SRDUnit = *unit
	}
	if *leaf != 0 {
		params.SRDLeaf = *leaf
	}
	platform, err := prover.Choose(prover.Here(), *dir, *simulate)
	if err != nil {
		return err
	}
	if platform.Kind() != mpow.KindSimulated && *build+*keys != "" {
		return fmt.Errorf("--build and --release-keys are for simulated provers: hardware has them in its measurement: %w", errUsage)
	}
	if *build != "" {
		platform = prover.SimulatedBuild(*dir, *build)
	}
	if *keys == "" {
		*keys = releaseKeys
	}
	config := prover.Config{Dir: *dir, Disks: disks, Take: take, Platform: platform, Params: params}
	if config.Releases, err = parseReleases(*keys); err != nil {
		return fmt.Errorf("release keys: %w: %w", err, errUsage)
	}
	switch {
	case *over:
		aside, err := prover.StartOver(config)
		if err == nil {
			fmt.Fprintf(stderr, "the old state is in %s; start the prover again, and its node begins a new generation\n", aside)
		}
		return err
	case *forget != "":
		return prover.ForgetDisk(config, *forget)
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	config.Logger = logger
	if platform.Kind() == mpow.KindSimulated {
		logger.Warn("SIMULATED PROVER: no hardware protects its keys, and what it proves is worth nothing outside a devnet", "mode", string(platform.Mode()))
	}
	p, err := prover.New(config)
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := listen(*socket)
	if err != nil {
		return err
	}
	logger.Info("prover listens", "socket", *socket)
	return p.Serve(ctx, l)
}

// releaseKeys are those whose word this build takes on which build follows which, as
// N:HEX,HEX…; none: nobody's. The linker sets it (make enclave RELEASE_KEYS=…), so
// that it is measured.
var releaseKeys string

// parseReleases reads such a list.
func parseReleases(s string) (r prover.Releases, err error) {
	if s == "" {
		return r, nil
	}
	need, list, ok := strings.Cut(s, ":")
	if r.Need, err = strconv.Atoi(need); err != nil || !ok {
		return r, fmt.Errorf("%q: want N:HEX,HEX…", s)
	}
	for _, h := range strings.Split(list, ",") {
		k, err := hex.DecodeString(h)
		if err != nil {
			return r, fmt.Errorf("%q: %w", h, err)
		}
		r.Keys = append(r.Keys, k)
	}
	return r, nil
}

// words is a flag that may be given more than once.
type words []string

func (w *words) String() string { return fmt.Sprint(*w) }

// Set implements flag.Value.
func (w *words) Set(s string) error {
	*w = append(*w, s)
	return nil
}

// listen opens the socket for this user only. A socket left by a prover that
// was killed is replaced; one that still answers is an error.
func listen(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another process listens on %s", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}
