package chain

import "sync"

// readCacheBytes bounds what one generation of a readCache remembers, in bytes of
// keys and values.
const readCacheBytes = 16 << 20

// A readCache remembers what was read of the last committed height, which is what
// the next block and the pool read again and again. Who reads at another height
// gets nothing from it and puts nothing in. It is safe for concurrent use.
type readCache struct {
	mu       sync.Mutex // guards the fields below
	height   int64
	now, old map[string]cachedValue
	bytes    int // of now
}

// A cachedValue is what stands at a key, or that nothing does.
type cachedValue struct {
	value []byte
	ok    bool
}

// get returns what is at key at height, if that is remembered.
func (c *readCache) get(height int64, key []byte) (v cachedValue, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if height != c.height {
		return v, false
	}
	if v, known = c.now[string(key)]; !known {
		if v, known = c.old[string(key)]; known {
			c.keep(key, v)
		}
	}
	return v, known
}

// put remembers what was read at height.
func (c *readCache) put(height int64, key []byte, v cachedValue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if height == c.height {
		c.keep(key, v)
	}
}

func (c *readCache) keep(key []byte, v cachedValue) {
	if c.now == nil || c.bytes >= readCacheBytes {
		c.now, c.old, c.bytes = map[string]cachedValue{}, c.now, 0
	}
	c.now[string(key)] = v
	c.bytes += len(key) + len(v.value)
}

// advance goes on to height, which the writes of o lead to from the one before.
func (c *readCache) advance(height int64, o *overlay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.height = height
	o.pairs.Ascend(func(p pair) bool {
		_, hot := c.now[string(p.key)]
		_, warm := c.old[string(p.key)]
		if hot || warm {
			c.keep(p.key, cachedValue{p.value, !p.gone})
		}
		return true
	})
}

// A cached source reads through a readCache; ranges go past it.
type cached struct {
	source
	cache  *readCache
	height int64
}

func (c cached) get(key []byte) ([]byte, bool) {
	v, known := c.cache.get(c.height, key)
	if !known {
		v.value, v.ok = c.source.get(key)
		c.cache.put(c.height, key, v)
	}
	return v.value, v.ok
}
