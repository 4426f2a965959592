package quote

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Collateral is what Intel says about its platforms beside their certificates.
// [Verify] takes all of it; [Collateral.Items] takes any part. As JSON it is what
// tools around Intel's library exchange: see [ParseCollateral].
type Collateral struct {
	TCBInfo    Signed `cbor:"1,keyasint,omitempty"` // of the platform's family
	QEIdentity Signed `cbor:"2,keyasint,omitempty"` // of the quoting enclave
	RootCRL    []byte `cbor:"3,keyasint,omitempty"` // DER, by the root
	PCKCRL     []byte `cbor:"4,keyasint,omitempty"` // DER, by the CA that certified the platform
	// PCKCA is that CA's certificate, DER. Verify has it from the quote and does
	// not look here; Items takes no PCKCRL without.
	PCKCA []byte `cbor:"5,keyasint,omitempty"`
}

// A Signed is a statement in JSON that Intel signed.
type Signed struct {
	Body   []byte `cbor:"1,keyasint,omitempty"` // the signed bytes, exactly
	Sig    []byte `cbor:"2,keyasint,omitempty"` // 64 bytes, r ‖ s
	Signer []byte `cbor:"3,keyasint,omitempty"` // certificate of "Intel SGX TCB Signing", DER
}

// openSigner reads the certificate that statements are signed with.
func openSigner(raw []byte, t Trust, s *span) (cert, error) {
	root, err := openRoot(t.Root, s)
	if err != nil {
		return cert{}, err
	}
	signer, err := openCert(raw, root, s)
	if err != nil {
		return cert{}, fmt.Errorf("signer: %w", err)
	}
	if signer.name != cnSigner || signer.ca || signer.usage&usageSign == 0 {
		return cert{}, fmt.Errorf("signer: certificate of %q, want %q, which is no CA and signs", signer.name, cnSigner)
	}
	return signer, nil
}

// check refuses what is not there, or more than is read.
func (x Signed) check() error {
	if len(x.Body) == 0 {
		return errors.New("missing")
	}
	if len(x.Body) > MaxItem {
		return fmt.Errorf("%d bytes, at most %d are read", len(x.Body), MaxItem)
	}
	return nil
}

// open checks that signer signed x and reads the JSON into v. Nothing looks at
// the JSON before.
func (x Signed) open(signer cert, v any) error {
	if err := x.check(); err != nil {
		return err
	}
	if !verifyRaw(signer.key, x.Body, x.Sig) {
		return errors.New("not signed by its signer")
	}
	return json.Unmarshal(x.Body, v)
}

// A statement is what TCB info and QE identity have in common.
type statement struct {
	ID         string `json:"id"`
	Version    int    `json:"version"`
	IssueDate  string `json:"issueDate"`
	NextUpdate string `json:"nextUpdate"`
	Evaluation uint32 `json:"tcbEvaluationDataNumber"`
}

// check compares kind and version and returns the dates.
func (x statement) check(id string, version int, what string, s *span) (issued, until int64, err error) {
	if x.ID != id || x.Version != version {
		return 0, 0, fmt.Errorf("it is of kind %q and version %d, want %q and %d", x.ID, x.Version, id, version)
	}
	if issued, err = parseDate(x.IssueDate); err != nil {
		return 0, 0, fmt.Errorf("issueDate: %w", err)
	}
	if until, err = parseDate(x.NextUpdate); err != nil {
		return 0, 0, fmt.Errorf("nextUpdate: %w", err)
	}
	s.meet(what, issued, until)
	return issued, until, nil
}

// A grade is Intel's word on one level of a TCB.
type grade struct {
	status     Status
	advisories []string
}

type jsonGrade struct {
	Status     Status   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs"`
}

// check refuses a grade that Intel's word is missing for.
func (g jsonGrade) check() (grade, error) {
	if g.Status == 0 {
		return grade{}, errors.New("a level without status")
	}
	return grade{g.Status, g.Advisories}, nil
}

// A tcbInfo grades the platforms of one family (Intel PCS API v4, TCB info v3).
type tcbInfo struct {
	fmspc         FMSPC
	pceid         [2]byte
	evaluation    uint32
	issued, until int64
	levels        []tcbLevel // best first
}

type tcbLevel struct {
	svn    [16]uint8
	pcesvn uint16
	grade  grade
}

func openTCBInfo(x Signed, signer cert, s *span) (tcbInfo, error) {
	var j struct {
		statement
		FMSPC   string `json:"fmspc"`
		PCEID   string `json:"pceId"`
		TCBType int    `json:"tcbType"`
		Levels  []struct {
			TCB struct {
				Components []struct {
					SVN uint8 `json:"svn"`
				} `json:"sgxtcbcomponents"`
				PCESVN uint16 `json:"pcesvn"`
			} `json:"tcb"`
			jsonGrade
		} `json:"tcbLevels"`
	}
	if err := x.open(signer, &j); err != nil {
		return tcbInfo{}, err
	}
	info := tcbInfo{evaluation: j.Evaluation}
	var err error
	if info.issued, info.until, err = j.check("SGX", 3, "TCB info", s); err != nil {
		return tcbInfo{}, err
	}
	if j.TCBType != 0 {
		return tcbInfo{}, fmt.Errorf("TCB of type %d, want 0", j.TCBType)
	}
	if err := unhex(info.fmspc[:], []byte(j.FMSPC)); err != nil {
		return tcbInfo{}, fmt.Errorf("FMSPC %w", err)
	}
	if err := unhex(info.pceid[:], []byte(j.PCEID)); err != nil {
		return tcbInfo{}, fmt.Errorf("PCEID %w", err)
	}
	for _, l := range j.Levels {
		g, err := l.check()
		if err != nil {
			return tcbInfo{}, err
		}
		if n := len(l.TCB.Components); n != 16 {
			return tcbInfo{}, fmt.Errorf("a level of %d components, want 16", n)
		}
		level := tcbLevel{pcesvn: l.TCB.PCESVN, grade: g}
		for i, c := range l.TCB.Components {
			level.svn[i] = c.SVN
		}
		info.levels = append(info.levels, level)
	}
	return info, nil
}

// match returns the grade of the first level that the platform has reached.
func (t tcbInfo) match(p pck) (grade, error) {
	for _, l := range t.levels {
		reached := p.pcesvn >= l.pcesvn
		for i := range l.svn {
			reached = reached && p.svn[i] >= l.svn[i]
		}
		if reached {
			return l.grade, nil
		}
	}
	return grade{}, fmt.Errorf("the platform (SVN %v, PCE %d) is below all levels", p.svn, p.pcesvn)
}

// A qeIdentity names Intel's quoting enclave (Intel PCS API v4, QE identity v2).
type qeIdentity struct {
	evaluation     uint32
	issued, until  int64
	misc, miscMask uint32
	attr, attrMask [16]byte
	signer         Hash
	product        uint16
	levels         []qeLevel // best first
}

type qeLevel struct {
	svn   uint16
	grade grade
}

func openQEIdentity(x Signed, signer cert, s *span) (qeIdentity, error) {
	var j struct {
		statement
		Misc     string `json:"miscselect"`
		MiscMask string `json:"miscselectMask"`
		Attr     string `json:"attributes"`
		AttrMask string `json:"attributesMask"`
		Signer   string `json:"mrsigner"`
		Product  uint16 `json:"isvprodid"`
		Levels   []struct {
			TCB struct {
				SVN uint16 `json:"isvsvn"`
			} `json:"tcb"`
			jsonGrade
		} `json:"tcbLevels"`
	}
	if err := x.open(signer, &j); err != nil {
		return qeIdentity{}, err
	}
	id := qeIdentity{evaluation: j.Evaluation, product: j.Product}
	var err error
	if id.issued, id.until, err = j.check("QE", 2, "QE identity", s); err != nil {
		return qeIdentity{}, err
	}
	var misc, miscMask [4]byte
	for _, f := range []struct {
		name, text string
		dst        []byte
	}{
		{"miscselect", j.Misc, misc[:]}, {"miscselectMask", j.MiscMask, miscMask[:]},
		{"attributes", j.Attr, id.attr[:]}, {"attributesMask", j.AttrMask, id.attrMask[:]}, {"mrsigner", j.Signer, id.signer[:]},
	} {
		if err := unhex(f.dst, []byte(f.text)); err != nil {
			return qeIdentity{}, fmt.Errorf("%s %w", f.name, err)
		}
	}
	id.misc, id.miscMask = bigEndian(misc), bigEndian(miscMask)
	for _, l := range j.Levels {
		g, err := l.check()
		if err != nil {
			return qeIdentity{}, err
		}
		id.levels = append(id.levels, qeLevel{l.TCB.SVN, g})
	}
	return id, nil
}

// bigEndian reads MISCSELECT as Intel prints it: a number, the highest digit
// first.
func bigEndian(b [4]byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// match checks that r is of the quoting enclave and returns its grade.
func (id qeIdentity) match(r Report) (grade, error) {
	if r.MRSIGNER != id.signer || r.Product != id.product {
		return grade{}, fmt.Errorf("the quoting enclave is product %d of signer %v, want %d of %v", r.Product, r.MRSIGNER, id.product, id.signer)
	}
	if r.MiscSelect&id.miscMask != id.misc&id.miscMask {
		return grade{}, fmt.Errorf("the quoting enclave has MISCSELECT %08x, want %08x under %08x", r.MiscSelect, id.misc, id.miscMask)
	}
	attr := r.attributes()
	for i := range attr {
		if attr[i]&id.attrMask[i] != id.attr[i]&id.attrMask[i] {
			return grade{}, fmt.Errorf("the quoting enclave has attributes %x, want %x under %x", attr, id.attr, id.attrMask)
		}
	}
	for _, l := range id.levels {
		if r.SVN >= l.svn {
			return l.grade, nil
		}
	}
	return grade{}, fmt.Errorf("the quoting enclave (SVN %d) is below all levels", r.SVN)
}

// An Item is one piece of collateral that has been checked by itself, as a chain
// keeps it.
type Item struct {
	Name       string     // "tcb/00a067110000", "qe", "crl/root", "crl/processor" or "crl/platform"
	Issued     int64      // Unix seconds
	Until      int64      // Unix seconds: the first end of the item and the certificates over it
	Evaluation uint32     // of TCB info and QE identity
	Part       Collateral // this piece alone, with the certificates over it
}

// Revoked returns an error that names a certificate over c's pieces which a list
// of the root's revokes; nothing else of list and pieces is checked, dates
// included. What does not read revokes nothing.
func (c Collateral) Revoked(rootCRL []byte, t Trust) error {
	s := newSpan()
	root, err := openRoot(t.Root, &s)
	if err != nil || len(rootCRL) == 0 {
		return err
	}
	list, err := openCRL(rootCRL, root, &s)
	if err != nil {
		return nil
	}
	for _, raw := range [][]byte{c.PCKCA, c.TCBInfo.Signer, c.QEIdentity.Signer} {
		if x, err := openCert(raw, root, &s); err == nil && list.revokes(x) {
			return fmt.Errorf("%s is revoked", x.name)
		}
	}
	return nil
}

// Items checks every piece that c has: signed under t.Root, of the right kind,
// and valid at t.Time. The order is fixed. It is an error to have none
// (spec §3.2).
func (c Collateral) Items(t Trust) ([]Item, error) {
	var all []Item
	for _, open := range []func(Trust) (Item, bool, error){c.rootItem, c.pckItem, c.qeItem, c.tcbItem} {
		item, ok, err := open(t)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, item)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there is none")
	}
	return all, nil
}

func (c Collateral) rootItem(t Trust) (Item, bool, error) {
	if len(c.RootCRL) == 0 {
		return Item{}, false, nil
	}
	s := newSpan()
	root, err := openRoot(t.Root, &s)
	if err != nil {
		return Item{}, false, err
	}
	l, err := openCRL(c.RootCRL, root, &s)
	if err == nil {
		err = s.holds(t.Time)
	}
	if err != nil {
		return Item{}, false, fmt.Errorf("root CRL: %w", err)
	}
	return Item{Name: "crl/root", Issued: l.issued, Until: s.until, Part: Collateral{RootCRL: c.RootCRL}}, true, nil
}

func (c Collateral) pckItem(t Trust) (Item, bool, error) {
	if len(c.PCKCRL) == 0 {
		return Item{}, false, nil
	}
	s := newSpan()
	root, err := openRoot(t.Root, &s)
	if err != nil {
		return Item{}, false, err
	}
	fail := func(err error) (Item, bool, error) { return Item{}, false, fmt.Errorf("PCK CRL: %w", err) }
	ca, err := openCert(c.PCKCA, root, &s)
	if err != nil {
		return fail(err)
	}
	name, err := caName(ca)
	if err != nil {
		return fail(err)
	}
	l, err := openCRL(c.PCKCRL, ca, &s)
	if err == nil {
		err = s.holds(t.Time)
	}
	if err != nil {
		return fail(err)
	}
	return Item{Name: "crl/" + name, Issued: l.issued, Until: s.until, Part: Collateral{PCKCRL: c.PCKCRL, PCKCA: c.PCKCA}}, true, nil
}

func (c Collateral) qeItem(t Trust) (Item, bool, error) {
	if len(c.QEIdentity.Body) == 0 {
		return Item{}, false, nil
	}
	s := newSpan()
	var id qeIdentity
	signer, err := openSigner(c.QEIdentity.Signer, t, &s)
	if err == nil {
		id, err = openQEIdentity(c.QEIdentity, signer, &s)
	}
	if err == nil {
		err = s.holds(t.Time)
	}
	if err != nil {
		return Item{}, false, fmt.Errorf("QE identity: %w", err)
	}
	return Item{Name: "qe", Issued: id.issued, Until: s.until, Evaluation: id.evaluation, Part: Collateral{QEIdentity: c.QEIdentity}}, true, nil
}

func (c Collateral) tcbItem(t Trust) (Item, bool, error) {
	if len(c.TCBInfo.Body) == 0 {
		return Item{}, false, nil
	}
	s := newSpan()
	var info tcbInfo
	signer, err := openSigner(c.TCBInfo.Signer, t, &s)
	if err == nil {
		info, err = openTCBInfo(c.TCBInfo, signer, &s)
	}
	if err == nil {
		err = s.holds(t.Time)
	}
	if err != nil {
		return Item{}, false, fmt.Errorf("TCB info: %w", err)
	}
	return Item{Name: "tcb/" + info.fmspc.String(), Issued: info.issued, Until: s.until, Evaluation: info.evaluation, Part: Collateral{TCBInfo: c.TCBInfo}}, true, nil
}
