//go:build !unix

package bench

import "time"

// cpuTime is unknown here: figures by CPU-second are not given.
func cpuTime() time.Duration { return 0 }
