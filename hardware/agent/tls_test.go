package agent

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
)

// certs makes a folder of certificates that began at a time.
func certs(t *testing.T, began time.Time) string {
	dir := t.TempDir()
	require.NoError(t, WriteCerts(dir, []string{"edge.example", "192.0.2.7"}, began, 24*time.Hour))
	return dir
}

func serverCert(dir string) Credentials {
	return Credentials{Cert: filepath.Join(dir, ServerCertFile), Key: filepath.Join(dir, ServerKeyFile), CA: filepath.Join(dir, CAFile)}
}

func TestCertificates(t *testing.T) {
	m := tiny(t).Spec
	good, other, old := certs(t, time.Now()), certs(t, time.Now()), certs(t, time.Now().Add(-48*time.Hour))
	agentWith := func(c Credentials) string {
		return serve(t, func(env *world.Real) hardware.Device { return newFake(env, nil) }, ServerConfig{Models: []*hardware.Model{m}, Credentials: c}).addr
	}
	addr, expired, plain := agentWith(serverCert(good)), agentWith(serverCert(old)), agentWith(Credentials{Insecure: true})
	client := agentWith(Credentials{Cert: InDir(good).Cert, Key: InDir(good).Key, CA: InDir(good).CA})
	mixed := InDir(other)
	mixed.CA = InDir(good).CA
	asServer := serverCert(good)
	named := InDir(good)
	named.ServerName = "edge.example"
	misnamed := InDir(good)
	misnamed.ServerName = "cloud.example"
	mismatched := InDir(good)
	mismatched.Key = InDir(other).Key
	oldClient := InDir(old)
	oldClient.CA = InDir(good).CA
	for _, tc := range []struct {
		name, addr string
		cred       Credentials
		want       string // "" = it works
	}{
		{"right", addr, InDir(good), ""},
		{"right, by another name of the agent", addr, named, ""},
		{"a name that the agent does not have", addr, misnamed, "cloud.example"},
		{"of another authority", addr, InDir(other), "unknown authority"},
		{"a client of another authority", addr, mixed, "certificate"},
		{"the agent's certificate used by a client", addr, asServer, "certificate"},
		{"a client's certificate used by an agent", client, InDir(good), "certificate"},
		{"the agent's has expired", expired, InDir(old), "expired"},
		{"the client's has expired", addr, oldClient, "certificate"},
		{"none", addr, Credentials{Insecure: true}, ""},
		{"an agent without", plain, InDir(good), "handshake"},
		{"a key of another certificate", addr, mismatched, "private key does not match"},
		{"missing", addr, InDir(filepath.Join(good, "nowhere")), "no such file"},
		{"insecure and secure", addr, Credentials{Insecure: true, CA: "x"}, "give one of them"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := world.NewReal(t.Context())
			cfg := config(tc.addr, m)
			cfg.Credentials = tc.cred
			d, err := Dial(env, cfg)
			if tc.name == "none" {
				require.ErrorIs(t, err, hardware.ErrDown)
				return
			}
			if tc.want != "" {
				require.ErrorContains(t, err, tc.want)
				return
			}
			require.NoError(t, err)
			within(t, env, func(t require.TestingT) {
				_, err := d.Run(prefill(m, 1, 3))
				require.NoError(t, err)
			})
			require.True(t, d.Peer().TLS)
		})
	}
}

// TestTLSIs13: an older version is refused, and a client without a certificate.
func TestTLSIs13(t *testing.T) {
	m := tiny(t).Spec
	dir := certs(t, time.Now())
	addr := serve(t, func(env *world.Real) hardware.Device { return newFake(env, nil) },
		ServerConfig{Models: []*hardware.Model{m}, Credentials: serverCert(dir)}).addr
	conf, pool, err := InDir(dir).config()
	require.NoError(t, err)
	conf.RootCAs, conf.NextProtos = pool, []string{"h2"}
	read := func(c *tls.Config) error {
		conn, err := tls.Dial("tcp", addr, c)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	require.NoError(t, read(conf.Clone()))
	old := conf.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	require.ErrorContains(t, read(old), "protocol version")
	bare := conf.Clone()
	bare.Certificates = nil
	require.ErrorContains(t, read(bare), "certificate required")
}

func TestInsecureIsForThisMachine(t *testing.T) {
	m := tiny(t).Spec
	env := world.NewReal(t.Context())
	s, err := NewServer(env, newFake(env, nil), ServerConfig{Models: []*hardware.Model{m}, Credentials: Credentials{Insecure: true}})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	require.NoError(t, err)
	defer l.Close()
	require.ErrorContains(t, s.Serve(l), "insecure is for loopback only")
}

// TestKeysAreTheOwnersAlone: key files cannot be read by others, nothing is
// overwritten, and the authority's key is nowhere.
func TestKeysAreTheOwnersAlone(t *testing.T) {
	dir := certs(t, time.Now())
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 5)
	for _, f := range []string{ServerKeyFile, ClientKeyFile} {
		info, err := os.Stat(filepath.Join(dir, f))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	before, err := os.ReadFile(filepath.Join(dir, CAFile))
	require.NoError(t, err)
	require.ErrorContains(t, WriteCerts(dir, nil, time.Now(), time.Hour), "not overwritten")
	after, err := os.ReadFile(filepath.Join(dir, CAFile))
	require.NoError(t, err)
	require.Equal(t, before, after)
}
