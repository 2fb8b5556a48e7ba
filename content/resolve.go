package content

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/Masterminds/semver/v3"

	"joist/workflows/lang"
)

// Wish is what packs are to be found for.
type Wish struct {
	File      *lang.ClusterFile
	Folder    string // where relative sources start: that of the cluster file
	Lock      *Lock  // nil: whatever satisfies everybody
	Keep      *Lock  // versions that are taken as long as they satisfy everybody; nil: none
	Newest    bool   // the newest versions that do, rather than the oldest
	Loose     bool   // a source with a single pack is taken whatever its version: whoever compiles says, with its place, what does not suit
	Catalogue lang.Catalogue
}

// Chosen is the version of a pack that is used.
type Chosen struct {
	Source string
	Pack   *lang.Pack
	Asks   []Ask // who wants which versions
}

// Ask is a constraint on a pack's version, and who has it.
type Ask struct{ By, Constraint string }

// String is for people: who asks, and for what.
func (a Ask) String() string { return fmt.Sprintf("%s asks for %q", a.By, a.Constraint) }

// theFile is who asks where the cluster file does.
const theFile = "the cluster file"

// Yanked is the file in a version's folder that says it is not to be used any more, and why.
const Yanked = "YANKED"

// maxRounds bounds how often a choice may lead to another one.
const maxRounds = 100

// Resolve chooses a version of each pack that a cluster file uses, and of those that they require: the oldest that satisfies
// everybody who asks, so that what is published later changes nothing. With a lock it is the version of the lock, whose content
// has to be what it was.
func Resolve(w Wish) (map[string]Chosen, lang.Diagnostics, error) {
	r := &resolver{wish: w, keep: map[string]string{}, shelves: map[string]*shelf{}, floor: map[string]*semver.Version{}}
	if w.Keep != nil {
		for name, l := range w.Keep.Packs {
			r.keep[name] = l.Version
		}
	}
	chosen := map[string]Chosen{}
	for range maxRounds {
		next, err := r.round(chosen)
		if maps.EqualFunc(chosen, next, func(a, b Chosen) bool { return a.Pack == b.Pack }) {
			if err == nil {
				err = cycle(next)
			}
			return next, append(r.diags, r.lacking...), err
		}
		chosen = next
	}
	return nil, r.diags, fmt.Errorf("cannot choose versions of packs: each choice leads to another one; bound them in the cluster file's packs, with version = \"= 1.2.3\"")
}

// LockOf is the lock of what was chosen.
func LockOf(chosen map[string]Chosen) *Lock {
	l := &Lock{Format: LockFormat, Packs: map[string]Locked{}}
	for name, c := range chosen {
		l.Packs[name] = Locked{Source: c.Source, Version: c.Pack.Version, Digest: "sha256:" + c.Pack.Digest().String()}
	}
	return l
}

// resolver keeps what was read of sources.
type resolver struct {
	wish    Wish
	shelves map[string]*shelf
	keep    map[string]string          // versions to take while they suit; one that did not is not tried again
	floor   map[string]*semver.Version // no choice goes back
	diags   lang.Diagnostics
	lacking lang.Diagnostics // the error of the last round, where the cluster file names the pack that it is about
}

// shelf is the versions of one pack at its source.
type shelf struct {
	source   string
	versions []*semver.Version     // ascending
	folders  map[string]string     // of each version; empty for a source that is the pack itself
	yanked   map[string]string     // why, by version
	err      error                 // why it could not be read
	packs    map[string]*lang.Pack // those that were loaded
	files    map[string]map[string][]byte
}

// round chooses by what those chosen before ask for. An error is about the first pack that cannot be chosen, which is left out.
func (r *resolver) round(before map[string]Chosen) (map[string]Chosen, error) {
	asks := map[string][]Ask{}
	for name, p := range r.wish.File.Packs {
		asks[name] = nil
		if p.Version != "" {
			asks[name] = []Ask{{theFile, p.Version}}
		}
	}
	reached := map[string]bool{}
	for work := slices.Sorted(maps.Keys(asks)); len(work) > 0; work = work[1:] {
		c, ok := before[work[0]]
		if reached[work[0]] || !ok {
			continue
		}
		reached[work[0]] = true
		for _, name := range slices.Sorted(maps.Keys(c.Pack.Requires)) {
			asks[name] = append(asks[name], Ask{work[0] + " " + c.Pack.Version, c.Pack.Requires[name]})
			work = append(work, name)
		}
	}
	next := map[string]Chosen{}
	var first error // to be said once it is known who else asks
	r.lacking = nil
	for _, name := range slices.Sorted(maps.Keys(asks)) {
		c, err := r.choose(name, asks[name])
		switch {
		case err == nil:
			next[name] = c
		case first == nil:
			first, r.lacking = err, r.wish.File.Lacking(name, err)
		}
	}
	return next, first
}

func (r *resolver) choose(name string, asks []Ask) (Chosen, error) {
	source := Builtin
	if p, ok := r.wish.File.Packs[name]; ok {
		source = p.Source
	}
	var locked *Locked
	if r.wish.Lock != nil {
		l, ok := r.wish.Lock.Packs[name]
		if !ok {
			return Chosen{}, fmt.Errorf("pack %s is not in the lock file%s; joist pack lock FILE writes it anew", name, askers(asks))
		}
		locked, source = &l, l.Source
	}
	if strings.ContainsFunc(source, unicode.IsControl) { // other errors name it as it is
		return Chosen{}, fmt.Errorf("cannot look for pack %s at %q: a source has no control characters", name, source)
	}
	s, err := r.shelf(name, source)
	switch {
	case err != nil && locked != nil && source != r.wish.File.Packs[name].Source:
		return Chosen{}, fmt.Errorf("%w; the lock file takes it from there: joist pack vendor FILE DIR copies it anew, once joist pack lock FILE names its source again", err)
	case err != nil:
		return Chosen{}, err
	}
	var fits []*semver.Version
	for _, v := range s.versions {
		if locked != nil && v.String() != locked.Version || locked == nil && s.yanked[v.String()] != "" || r.floor[name] != nil && v.LessThan(r.floor[name]) {
			continue
		}
		if satisfies(v, asks) || r.wish.Loose && locked == nil && len(s.folders) == 0 {
			fits = append(fits, v)
		}
	}
	if len(fits) == 0 {
		return Chosen{}, s.none(name, asks, locked)
	}
	v := fits[0]
	kept := slices.IndexFunc(fits, func(v *semver.Version) bool { return v.String() == r.keep[name] })
	switch {
	case kept >= 0:
		v = fits[kept]
	case r.wish.Newest:
		v = fits[len(fits)-1]
	default:
		delete(r.keep, name)
		r.floor[name] = v
	}
	if why := s.yanked[v.String()]; why != "" {
		return Chosen{}, fmt.Errorf("pack %s %s is in the lock file and was yanked: %s; joist pack update FILE takes another version", name, v, why)
	}
	p, err := r.load(s, name, v)
	if err != nil {
		return Chosen{}, err
	}
	if locked != nil && "sha256:"+p.Digest().String() != locked.Digest {
		return Chosen{}, fmt.Errorf("pack %s %s at %s is not what the lock file says: its digest is sha256:%s, the lock has %s; a published version never changes: find out who changed it, or accept it with joist pack lock FILE --accept-changed", name, v, shown(source), p.Digest(), shown(locked.Digest))
	}
	return Chosen{Source: source, Pack: p, Asks: asks}, nil
}

func satisfies(v *semver.Version, asks []Ask) bool {
	for _, a := range asks {
		if c, err := semver.NewConstraint(a.Constraint); err == nil && !c.Check(v) { // what is none is said elsewhere
			return false
		}
	}
	return true
}

// none says why no version can be chosen.
func (s *shelf) none(name string, asks []Ask, locked *Locked) error {
	var have []string
	for _, v := range s.versions {
		text := v.String()
		if s.yanked[text] != "" {
			text += " (yanked)"
		}
		have = append(have, text)
	}
	at := strings.Join(have, ", ")
	switch {
	case locked != nil && !slices.ContainsFunc(s.versions, func(v *semver.Version) bool { return v.String() == locked.Version }):
		return fmt.Errorf("pack %s %s is in the lock file, and at %s there is only %s; joist pack update FILE takes another version", name, shown(locked.Version), shown(s.source), at)
	case locked != nil:
		return fmt.Errorf("pack %s %s is in the lock file, and does not suit%s; joist pack update FILE takes another version", name, shown(locked.Version), askers(asks))
	}
	return fmt.Errorf("no version of pack %s suits all%s; at %s there is %s", name, askers(asks), shown(s.source), at)
}

// shown is text of a lock or a cluster file as a message has it: quoted if it has what a terminal would obey.
func shown(text string) string {
	if quoted := strconv.Quote(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}

func askers(asks []Ask) string {
	var list []string
	for _, a := range asks {
		list = append(list, a.String())
	}
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list, ", ")
}

// shelf looks at a source: a pack, or a folder of folders that are named by their versions.
func (r *resolver) shelf(name, source string) (*shelf, error) {
	s := r.shelves[name]
	if s == nil {
		s = &shelf{source: source, folders: map[string]string{}, yanked: map[string]string{}, packs: map[string]*lang.Pack{}, files: map[string]map[string][]byte{}}
		r.shelves[name], s.err = s, r.look(s, name)
	}
	return s, s.err
}

// look fills a shelf.
func (r *resolver) look(s *shelf, name string) error {
	source := s.source
	folder := source
	if !filepath.IsAbs(folder) {
		folder = filepath.Join(r.wish.Folder, source)
	}
	entries, err := os.ReadDir(folder)
	_, missing := os.Stat(filepath.Join(folder, "pack.hcl"))
	if source == Builtin || strings.Contains(source, "://") || err != nil || missing == nil {
		files, err := Find(name, source, r.wish.Folder)
		if err != nil {
			return err
		}
		p, err := r.read(files, name)
		if err != nil {
			return err
		}
		v, err := semver.StrictNewVersion(p.Version)
		if err != nil {
			return fmt.Errorf("cannot use pack %s: %q is not a version", name, p.Version)
		}
		s.versions, s.packs[v.String()] = []*semver.Version{v}, p
		return nil
	}
	for _, e := range entries {
		v, err := semver.StrictNewVersion(e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		s.versions, s.folders[v.String()] = append(s.versions, v), filepath.Join(folder, e.Name())
		if why, err := fs.ReadFile(os.DirFS(folder), e.Name()+"/"+Yanked); err == nil {
			s.yanked[v.String()] = strings.TrimSpace("it says " + strings.TrimSpace(string(why)))
		}
	}
	if len(s.versions) == 0 {
		return fmt.Errorf("cannot find pack %s: %s has neither a pack.hcl nor folders named by versions, such as 0.1.0", name, folder)
	}
	slices.SortFunc(s.versions, (*semver.Version).Compare)
	return nil
}

func (r *resolver) load(s *shelf, name string, v *semver.Version) (*lang.Pack, error) {
	if p := s.packs[v.String()]; p != nil {
		return p, nil
	}
	files, err := Folder(s.folders[v.String()])
	if err != nil {
		return nil, err
	}
	delete(files, Yanked)
	p, err := r.read(files, name)
	if err != nil {
		return nil, err
	}
	if p.Version != v.String() {
		return nil, fmt.Errorf("cannot use pack %s: the folder %s has version %s of it", name, s.folders[v.String()], p.Version)
	}
	s.packs[v.String()] = p
	return p, nil
}

func (r *resolver) read(files map[string][]byte, name string) (*lang.Pack, error) {
	p, diags := lang.Load(files, r.wish.Catalogue)
	r.diags = append(r.diags, diags...)
	if p == nil {
		return nil, fmt.Errorf("cannot load pack %s", name)
	}
	return p, nil
}

// cycle reports packs that require each other.
func cycle(chosen map[string]Chosen) error {
	const under, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(name string) error
	visit = func(name string) error {
		switch state[name] {
		case done:
			return nil
		case under:
			at := slices.Index(path, name)
			return fmt.Errorf("packs require each other: %s; move what both need into a third", strings.Join(append(path[at:], name), " requires "))
		}
		state[name] = under
		path = append(path, name)
		for _, next := range slices.Sorted(maps.Keys(chosen[name].Pack.Requires)) {
			if err := visit(next); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		state[name] = done
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		if err := visit(name); err != nil {
			return err
		}
	}
	return nil
}

// vacant refuses a folder in which a copy of a pack would lie with files that are not the pack's, or be written somewhere else.
func vacant(p *lang.Pack, folder, name string) error {
	if info, err := os.Lstat(filepath.Join(folder, name)); err == nil && !info.IsDir() {
		return fmt.Errorf("%q is no folder; remove it first", filepath.Join(folder, name))
	}
	top := filepath.Join(folder, name, p.Version)
	return filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		switch _, ours := p.Files[strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(path, top)), "/")]; {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir(), ours && e.Type().IsRegular():
			return nil
		}
		return fmt.Errorf("%q is not of this pack, or no file of its own; remove it first", path)
	})
}

// Vendor copies what was chosen below a folder, as folder/NAME/VERSION, and gives a lock that takes it from there. at is the
// folder as the lock names it. Nothing is written if something is there below NAME/VERSION that is not the pack's, or a symbolic link.
func Vendor(chosen map[string]Chosen, folder, at string) (*Lock, error) {
	l := LockOf(chosen)
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		if err := vacant(chosen[name].Pack, folder, name); err != nil {
			return nil, fmt.Errorf("cannot copy pack %s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		p := chosen[name].Pack
		for _, file := range slices.Sorted(maps.Keys(p.Files)) {
			to := filepath.Join(folder, name, p.Version, filepath.FromSlash(file))
			err := os.MkdirAll(filepath.Dir(to), 0o755)
			if err == nil {
				err = os.WriteFile(to, p.Files[file], 0o644)
			}
			if err != nil {
				return nil, fmt.Errorf("cannot copy pack %s: %w", name, err)
			}
		}
		one := l.Packs[name]
		one.Source = strings.TrimSuffix(filepath.ToSlash(at), "/") + "/" + name
		l.Packs[name] = one
	}
	return l, nil
}
