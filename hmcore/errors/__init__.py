"""The one exception tree. Code branches on the type, never on the text; each layer adds only its own context (`raise ... from`).

HyperMeshError                 what failed, where (`host`), the command that mends it (`fix`)
│
│   base.py
├── UsageError                 the caller asked for something impossible                        exit 2
│   └── ConfigError            a document is invalid: every problem at once, with file:line     exit 2
├── Interrupted                the operator said stop                                           exit 130
│
│   hosts.py
├── RemoteError                a host, over SSH
│   ├── Unreachable            no route, refused, timed out
│   ├── AuthenticationFailed   the host does not accept us
│   ├── HostKeyMismatch        the host is not who it was, or nobody vouched for it
│   ├── SudoRefused            we are not root there and may not become it
│   └── CommandFailed          a command ended with a status other than zero
├── PreflightFailed            a host cannot carry a node, and why
├── ReleaseError               a release cannot be built, sent or run
├── LabError                   the local test hosts
│
│   calls.py
├── TransportError             STOQ
│   ├── PeerUnreachable        no connection to the peer, or its circuit is open
│   │   └── NothingListens     its host is up and says that nobody listens there
│   ├── HandshakeRefused       TLS or hello: the peer does not accept us, or we do not accept it
│   │   └── AnotherNode        of the same cluster, but not the node that was called
│   ├── ConnectionLost         the connection ended under a call
│   ├── CallTimeout            no answer within the deadline; whether it was carried out is unknown
│   ├── Backpressure           the peer reads too slowly: the high-water mark is reached
│   └── FrameError             bytes that are no frame: oversized, truncated, or not of the schema
├── CallRefused                the other end answered: no
│   ├── PermissionDenied       the caller's role may not call this
│   ├── InvalidRequest         unknown method or malformed body
│   │   ├── LevelTooLow        the cluster's feature level does not allow it yet: not all nodes would understand it
│   │   ├── NotAsExpected      a key was changed last by another revision than the caller expects
│   │   └── TooLarge           more than the cluster keeps under one name
│   ├── SecretsLocked          the node that was asked cannot open the cluster's secrets now: ask another, or later
│   ├── NotLeader              ask `leader` instead
│   ├── NoQuorum               too few voters reachable to decide anything
│   ├── ChangeUnfinished       the voters are not yet as wished; asking again goes on from there
│   ├── TransferFailed         nobody else took the leadership over
│   └── InternalFault          the other end failed; its own log says why
├── Undecided                  nobody answered for a change: it may have been carried out, or still be
├── FormationFailed            the cluster could not be formed, or may not be
├── PortPublished              another app has the port, on every node
├── LockError                  a lock of the cluster
│   ├── LockHeld               another holds it: `held` says who
│   ├── LockUnavailable        this cluster gives no locks yet
│   └── LeaseLost              it was ours, and is so no longer: whatever it guards must stop
│
│   node.py
├── InitializationFailed       a required phase did not come up
├── ConsensusError
│   ├── StorageDamaged         a checksum or structure does not hold: file, offset, and how to re-seed
│   ├── StorageFull            no room for the journal
│   ├── StorageFailed          the disk fails otherwise: nobody knows what it holds, this node must stop
│   ├── ReleaseTooOld          the cluster is at a feature level that this release does not know: this node must stop
│   └── CommittedConflict      the leader contradicts what we know is committed: this node must stop
├── LayerMissing               what an optional layer needs is not installed
├── LayerDown                  what a layer needs is installed, but does not answer
├── NoLease                    what is exclusive may not be started here now: its node may count as cut off
├── ContainerRefused           Docker answered about a container: no
│   ├── ImageGone              its image is not on this node
│   ├── PartGone               the container, or a network or volume that it needs, is not there
│   ├── NameTaken              another container has its name
│   ├── PortTaken              something else has its port on this node
│   └── NoSpace                the disk that Docker keeps things on is full
│
│   content.py
├── PkiError                   a certificate, request or key that is not acceptable
├── SecretError                what was sealed cannot be opened: damaged, of another key, or of something else
├── BlobError                  content that is kept by its digest: layers of images
│   ├── BlobMissing            it is not there
│   ├── BlobCorrupt            the bytes are not those that the digest names
│   ├── BlobBusy               somebody brings it just now, or too many are being served
│   └── BlobStoreFull          no room for it on the disk
└── ImageError                 images of containers
    ├── ArchiveError           a file that is no archive of an image, or not a whole one
    ├── ImageUnavailable       neither Docker nor a node nor a registry has it
    │   ├── RegistryDenied     its registry gives it, if at all, to somebody else
    │   └── RegistrySilent     its registry gave no answer: whether it has it is not known
    └── DockerMissing          this machine has no docker command
"""

from hmcore.errors.base import *
from hmcore.errors.calls import *
from hmcore.errors.content import *
from hmcore.errors.hosts import *
from hmcore.errors.node import *
