package quote

import (
	"errors"
	"fmt"
)

// DER tags that Intel's certificates and lists use.
const (
	tagBool      = 0x01
	tagInt       = 0x02
	tagBits      = 0x03
	tagOctets    = 0x04
	tagOID       = 0x06
	tagEnum      = 0x0a
	tagUTCTime   = 0x17
	tagTime      = 0x18
	tagSeq       = 0x30
	tagSet       = 0x31
	tagContext0  = 0xa0 // [0] EXPLICIT
	tagContext3  = 0xa3 // [3] EXPLICIT
	maxDERLength = 1 << 16
)

// A der is what is still to be read of a DER encoding (X.690). Its methods
// refuse every encoding but the one that DER has for a value.
type der []byte

func (d der) empty() bool { return len(d) == 0 }

// peek returns the tag of the next element, 0 when there is none.
func (d der) peek() byte {
	if len(d) == 0 {
		return 0
	}
	return d[0]
}

// element cuts off the next element, whatever it is, and returns its tag, its
// content and all of it.
func (d *der) element() (tag byte, content, whole []byte, err error) {
	b := *d
	if len(b) < 2 {
		return 0, nil, nil, errors.New("DER: the data ends too early")
	}
	if b[0]&0x1f == 0x1f {
		return 0, nil, nil, fmt.Errorf("DER: tag %#x has more than one byte", b[0])
	}
	n, head := int(b[1]), 2
	if n >= 0x80 {
		size := n - 0x80
		if size < 1 || size > 2 || len(b) < 2+size {
			return 0, nil, nil, fmt.Errorf("DER: length of form %#x", b[1])
		}
		n, head = 0, 2+size
		for _, x := range b[2:head] {
			n = n<<8 | int(x)
		}
		if n < 0x80 || size == 2 && n < 0x100 {
			return 0, nil, nil, fmt.Errorf("DER: length %d is written too long", n)
		}
	}
	if n > maxDERLength || n > len(b)-head {
		return 0, nil, nil, fmt.Errorf("DER: an element of %d bytes in %d", n, len(b)-head)
	}
	*d = b[head+n:]
	return b[0], b[head : head+n], b[:head+n], nil
}

// next cuts off the next element, which must have the tag, and returns its
// content.
func (d *der) next(tag byte) (der, error) {
	content, _, err := d.whole(tag)
	return content, err
}

// whole is next that returns the element with its header too.
func (d *der) whole(tag byte) (content der, whole []byte, err error) {
	if got := d.peek(); got != tag {
		return nil, nil, fmt.Errorf("DER: tag %#x where %#x must be", got, tag)
	}
	_, content, whole, err = d.element()
	return content, whole, err
}

// only is next for the last element: nothing may follow.
func (d der) only(tag byte) (der, error) {
	content, err := d.next(tag)
	if err == nil && !d.empty() {
		err = fmt.Errorf("DER: %d bytes too many", len(d))
	}
	return content, err
}

// number reads an INTEGER or ENUMERATED of at most 4 bytes that is not negative.
func (d *der) number(tag byte) (uint32, error) {
	b, err := d.positive(tag)
	if err != nil {
		return 0, err
	}
	if len(b) > 5 || len(b) == 5 && b[0] != 0 {
		return 0, fmt.Errorf("DER: a number of %d bytes", len(b))
	}
	var n uint32
	for _, x := range b {
		n = n<<8 | uint32(x)
	}
	return n, nil
}

// positive reads an INTEGER that is not negative, as its bytes: equal numbers
// have equal bytes.
func (d *der) positive(tag byte) ([]byte, error) {
	b, err := d.next(tag)
	switch {
	case err != nil:
		return nil, err
	case len(b) == 0 || len(b) > 1 && b[0] == 0 && b[1] < 0x80:
		return nil, errors.New("DER: a number that is not in its shortest form")
	case b[0] >= 0x80:
		return nil, errors.New("DER: a negative number")
	}
	return b, nil
}

// bits reads a BIT STRING of whole bytes.
func (d *der) bits() ([]byte, error) {
	b, err := d.next(tagBits)
	if err != nil {
		return nil, err
	}
	if len(b) < 1 || b[0] != 0 {
		return nil, errors.New("DER: a bit string that is not of whole bytes")
	}
	return b[1:], nil
}

// time reads a UTCTime or GeneralizedTime as Unix seconds (RFC 5280, 4.1.2.5).
func (d *der) time() (int64, error) {
	tag := d.peek()
	if tag != tagUTCTime && tag != tagTime {
		return 0, fmt.Errorf("DER: tag %#x where a time must be", tag)
	}
	b, err := d.next(tag)
	if err != nil {
		return 0, err
	}
	text := string(b)
	if tag == tagUTCTime {
		century := "20"
		if text >= "5" {
			century = "19"
		}
		text = century + text
	}
	if len(text) != 15 || text[14] != 'Z' {
		return 0, fmt.Errorf("DER: time %q", b)
	}
	return unix(text[0:4], text[4:6], text[6:8], text[8:10], text[10:12], text[12:14])
}
