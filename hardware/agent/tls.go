package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Credentials are the files by which client and agent know each other: TLS 1.3,
// both sides with a certificate of the same authority.
type Credentials struct {
	Cert, Key, CA string // PEM files
	ServerName    string // client: name in the agent's certificate; "" = the host of the address
	Insecure      bool   // no TLS: this machine only
}

// Files of a folder that WriteCerts makes.
const (
	CAFile         = "ca.pem"
	ServerCertFile = "server.pem"
	ServerKeyFile  = "server.key"
	ClientCertFile = "client.pem"
	ClientKeyFile  = "client.key"
)

// InDir are a client's credentials in a folder that WriteCerts made.
func InDir(dir string) Credentials {
	return Credentials{Cert: filepath.Join(dir, ClientCertFile), Key: filepath.Join(dir, ClientKeyFile), CA: filepath.Join(dir, CAFile)}
}

// config reads the files. It returns nil for insecure credentials.
func (c Credentials) config() (*tls.Config, *x509.CertPool, error) {
	given := c.Cert != "" || c.Key != "" || c.CA != ""
	switch {
	case c.Insecure && given:
		return nil, nil, errors.New("insecure and certificates at once: give one of them")
	case c.Insecure:
		return nil, nil, nil
	case c.Cert == "" || c.Key == "" || c.CA == "":
		return nil, nil, errors.New("certificate, key and CA are needed, all three (meibench agent certs DIR makes them); without them only insecure, and only on this machine")
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s with key %s: %w", c.Cert, c.Key, err)
	}
	text, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("CA %s: holds no PEM certificate", c.CA)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}, pool, nil
}

// ServerTLS and ClientTLS are the same for servers and clients of other protocols: both sides show a certificate of the authority. nil
// for insecure credentials.
func (c Credentials) ServerTLS() (*tls.Config, error) {
	conf, pool, err := c.config()
	if conf != nil {
		conf.ClientCAs, conf.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return conf, err
}

// ClientTLS is that of a client.
func (c Credentials) ClientTLS() (*tls.Config, error) {
	conf, pool, err := c.config()
	if conf != nil {
		conf.RootCAs, conf.ServerName = pool, c.ServerName
	}
	return conf, err
}

// client are the credentials of a client that talks to address.
func (c Credentials) client(address string) (credentials.TransportCredentials, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w (want HOST:PORT)", address, err)
	}
	conf, err := c.ClientTLS()
	if err != nil {
		return nil, err
	}
	if conf == nil {
		if !loopback(host) {
			return nil, fmt.Errorf("address %s is not on this machine: insecure is for loopback only; make certificates with meibench agent certs DIR", address)
		}
		return insecure.NewCredentials(), nil
	}
	if conf.ServerName == "" {
		conf.ServerName = host
	}
	return credentials.NewTLS(conf), nil
}

// server are the credentials of an agent that listens on addr.
func (c Credentials) server(addr net.Addr) (credentials.TransportCredentials, error) {
	conf, err := c.ServerTLS()
	if err != nil {
		return nil, err
	}
	if conf == nil {
		host, _, err := net.SplitHostPort(addr.String())
		if err != nil || !loopback(host) {
			return nil, fmt.Errorf("listening on %s without certificates: insecure is for loopback only; make certificates with meibench agent certs DIR", addr)
		}
		return insecure.NewCredentials(), nil
	}
	return credentials.NewTLS(conf), nil
}

// loopback reports whether a host can only be this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// WriteCerts makes an authority, and with it a certificate for agents that are
// reached under the given hosts (names or addresses; this machine always) and
// one for clients, valid for the given time. The authority's key is thrown away:
// no other certificate can follow. Existing files are not touched.
func WriteCerts(dir string, hosts []string, now time.Time, valid time.Duration) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{CAFile, ServerCertFile, ServerKeyFile, ClientCertFile, ClientKeyFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: certificates are not overwritten; choose another folder", filepath.Join(dir, name))
		}
	}
	issue := issuer{dir: dir, now: now, valid: valid}
	if err := issue.authority(); err != nil {
		return err
	}
	server := &x509.Certificate{Subject: pkix.Name{CommonName: "meibench agent"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, hosts...) {
		if ip := net.ParseIP(h); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else {
			server.DNSNames = append(server.DNSNames, h)
		}
	}
	if err := issue.pair(server, ServerCertFile, ServerKeyFile); err != nil {
		return err
	}
	client := &x509.Certificate{Subject: pkix.Name{CommonName: "meibench client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	return issue.pair(client, ClientCertFile, ClientKeyFile)
}

// issuer signs certificates and writes them down.
type issuer struct {
	dir   string
	now   time.Time
	valid time.Duration
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
}

func (s *issuer) authority() (err error) {
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "meibench"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign}
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	if err := s.date(ca); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, s.key.Public(), s.key)
	if err != nil {
		return err
	}
	if s.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	return s.write(CAFile, "CERTIFICATE", der, 0o644)
}

// date gives a certificate its number and its time. It begins an hour early, for
// machines whose clocks disagree.
func (s *issuer) date(c *x509.Certificate) (err error) {
	c.NotBefore, c.NotAfter = s.now.Add(-time.Hour), s.now.Add(s.valid)
	c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return err
}

func (s *issuer) pair(c *x509.Certificate, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	if err := s.date(c); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, c, s.ca, key.Public(), s.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := s.write(keyFile, "PRIVATE KEY", secret, 0o600); err != nil {
		return err
	}
	return s.write(certFile, "CERTIFICATE", der, 0o644)
}

func (s *issuer) write(name, kind string, der []byte, mode os.FileMode) error {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close())
}
