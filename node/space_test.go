package node

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What is wrong with a disk names it, what is free, and what to do; only one that the chain's databases could not write to
// ends consensus.
func TestAFullDiskIsNamed(t *testing.T) {
	for _, c := range []struct {
		free, reserve uint64
		want          string
		full          bool
	}{
		{DiskReserve, DiskReserve, "", false},
		{DiskReserve - 1, DiskReserve, "the disk of /h has 1023 MiB free", false},
		{blocksReserve, blocksReserve, "", false},
		{blocksReserve - 1, DiskReserve, "nearly full: 255 MiB are free", false},
		{chainReserve, blocksReserve, "nearly full: 64 MiB are free", false},
		{chainReserve - 1, blocksReserve, "the disk of /h is FULL: 63 MiB are free", true},
	} {
		word, level := spaceWord("/h", c.free, c.reserve)
		full := level == spaceNone
		if full != c.full || (word == "") != (c.want == "") || !strings.Contains(word, c.want) {
			t.Errorf("%d of %d free: got %q, %v, want %q, %v", c.free, c.reserve, word, full, c.want, c.full)
		}
		if word != "" && !strings.Contains(word, "free space") {
			t.Errorf("%d free: %q names no next step", c.free, word)
		}
	}
}

// Consensus ends in order before a database cannot write, and each change of the disk is told once.
func TestConsensusEndsBeforeTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		free := uint64(DiskReserve)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		engine, stop := context.WithCancelCause(ctx)
		go watchSpace(ctx, "/h", DiskReserve, func(string) (uint64, error) { return free, nil }, stop, slog.New(slog.NewTextHandler(&log, nil)))
		for _, step := range []struct {
			free uint64
			said int // lines in all
		}{{DiskReserve, 0}, {DiskReserve - 1, 1}, {DiskReserve - 2, 1}, {blocksReserve - 1, 2}, {blocksReserve - 2, 2}, {DiskReserve, 3}, {chainReserve, 4}, {chainReserve - 1, 5}} {
			synctest.Wait()
			if engine.Err() != nil {
				t.Fatalf("consensus ended before %d bytes were free: %v", step.free, context.Cause(engine))
			}
			free = step.free
			time.Sleep(2 * spaceEvery)
			synctest.Wait()
			if got := strings.Count(log.String(), "\n"); got != step.said {
				t.Errorf("with %d free: %d lines, want %d:\n%s", step.free, got, step.said, log.String())
			}
		}
		if why := context.Cause(engine); engine.Err() == nil || !strings.Contains(why.Error(), "the disk of /h is FULL: 63 MiB are free") {
			t.Errorf("consensus: %v, want it ended by the full disk", why)
		}
	})
}
