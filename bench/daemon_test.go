//go:build unix

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeEnv makes this test binary a daemon: it takes the place of ipfs and rainbow
// where a test cannot have these.
const fakeEnv = "LODE_BENCH_FAKE_DAEMON"

func TestMain(m *testing.M) {
	if how := os.Getenv(fakeEnv); how != "" {
		fmt.Println(fakeDaemon(how))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// fakeDaemon does what the bench needs of a daemon, but that it has every content
// at once: as many bytes as the environment says. "hangs" never answers a request,
// "mute" never gets ready, "dies" ends at the first request.
func fakeDaemon(how string) error {
	dir, at := os.Getenv("IPFS_PATH"), "127.0.0.1:0"
	if dir == "" {
		dir, at = os.Getenv("RAINBOW_DATADIR"), os.Getenv("RAINBOW_GATEWAY_LISTEN_ADDRESS")
	}
	switch arg := strings.Join(os.Args[1:], " "); {
	case arg == "version" || arg == "--version":
		fmt.Print("fake 1")
		os.Exit(0)
	case strings.HasPrefix(arg, "init"):
		if err := os.WriteFile(filepath.Join(dir, "config"), []byte(`{"Routing": {"Type": "auto", "Kept": 1}}`), 0o600); err != nil {
			return err
		}
		os.Exit(0)
	}
	pidFile := os.Getenv("LODE_BENCH_FAKE_PID")
	if err := os.WriteFile(pidFile+".new", []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	if err := os.Rename(pidFile+".new", pidFile); err != nil { // whole, for whoever sees it
		return err
	}
	l, err := net.Listen("tcp4", at)
	if err != nil {
		return err
	}
	for name, s := range map[string]string{"api": "/ip4/127.0.0.1/tcp/" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port), "gateway": "http://" + l.Addr().String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			return err
		}
	}
	if how != "mute" {
		fmt.Println("Daemon is ready; CTL endpoint listening")
	}
	size, _ := strconv.Atoi(os.Getenv("LODE_BENCH_FAKE_SIZE"))
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch how {
		case "hangs":
			<-r.Context().Done()
		case "dies":
			os.Exit(3)
		}
		w.Write(make([]byte, size))
	}))
}

// fake prepares the test binary to be a daemon, and returns its path and where it
// writes its process's number.
func fake(t *testing.T, how string, size int) (path, pidFile string) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pidFile = filepath.Join(t.TempDir(), "pid")
	t.Setenv(fakeEnv, how)
	t.Setenv("LODE_BENCH_FAKE_PID", pidFile)
	t.Setenv("LODE_BENCH_FAKE_SIZE", strconv.Itoa(size))
	t.Setenv("TMPDIR", t.TempDir())
	return path, pidFile
}

// leftNothing fails if the daemon still runs or its directory is there.
func leftNothing(t *testing.T, pidFile string) {
	t.Helper()
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatalf("the daemon never started: %v", err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after the run: %v, want none", pid, err)
	}
	if left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "lode-bench-*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestDaemonsAreMeasuredAndGone(t *testing.T) {
	for _, client := range []string{Kubo, Rainbow} {
		t.Run(client, func(t *testing.T) {
			path, pidFile := fake(t, "serves", 32*kib)
			cfg := Config{Set: Tiny, Cells: []string{"tiny-cold"}, Clients: []string{client}, Shaper: None}
			if client == Kubo {
				cfg.Kubo = path
			} else {
				cfg.Rainbow = path
			}
			rep, err := Run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if vs := rep.Of("tiny-cold", client, "ttfblk_ms"); len(vs) != 1 || vs[0] <= 0 || rep.Samples[0].Error != "" {
				t.Errorf("%+v: want one block", rep.Samples)
			}
			if rep.Versions[client] != "fake 1" || rep.Yardsticks[client] == "" {
				t.Errorf("version %q, configuration %q: want both told", rep.Versions[client], rep.Yardsticks[client])
			}
			leftNothing(t, pidFile)
		})
	}
}

// What a daemon does wrong is told, and never leaves it behind.
func TestDaemonsThatFailLeaveNothing(t *testing.T) {
	for _, c := range []struct{ how, want string }{
		{"mute", "context canceled"}, {"hangs", "context canceled"}, {"dies", "ended by itself"},
	} {
		t.Run(c.how, func(t *testing.T) {
			path, pidFile := fake(t, c.how, 32*kib)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.how != "dies" { // an interrupt, once the daemon is there
				go func() {
					for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
						if _, err := os.Stat(pidFile); err == nil || ctx.Err() != nil {
							break
						}
					}
					cancel()
				}()
			}
			_, err := Run(ctx, Config{Set: Tiny, Cells: []string{"tiny-cold"}, Clients: []string{Kubo}, Shaper: None, Kubo: path})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			leftNothing(t, pidFile)
		})
	}
	t.Run("short", func(t *testing.T) {
		path, pidFile := fake(t, "serves", 5)
		rep, err := Run(t.Context(), Config{Set: Tiny, Cells: []string{"tiny-cold"}, Clients: []string{Kubo}, Shaper: None, Kubo: path})
		if err != nil || len(rep.Samples) != 1 || !strings.Contains(rep.Samples[0].Error, "5 bytes, want 32768") || rep.Samples[0].Values["timeout"] != 1 {
			t.Errorf("%+v, %v: want a sample that failed", rep.Samples, err)
		}
		leftNothing(t, pidFile)
	})
	if _, err := Run(t.Context(), Config{Set: Tiny, Cells: []string{"tiny-cold"}, Shaper: None, Kubo: "/nowhere/ipfs"}); err == nil || !strings.Contains(err.Error(), "KUBO=/nowhere/ipfs") {
		t.Errorf("error %v, want one that names the path", err)
	}
}
