# The functions in Perl with a minimal runtime. `n` of the event is the amount of work.
use strict;
use warnings;
use Compress::Zlib ();
use Digest::SHA qw(sha256_hex hmac_sha256_base64);
use HTTP::Tiny;
use IPC::Open2;
use JSON::PP;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

my $http = HTTP::Tiny->new(timeout => 86_400, keep_alive => 1);
my @rows = map { { id => $_, name => "customer $_", total => $_ * 7919 % 900 } } 0 .. 1_999;
my $text = join '', map { "$_->{id} GET /item/$_->{name} $_->{total}\n" } @rows;

sub fetch { return $http->get("http://$ENV{SERVER}/$_[0]")->{content} }

sub routes {
    my ($n) = @_;
    my @best = (0, (1 << 30) x ($n * $n - 1));
    my @queue = (0);
    while (defined(my $node = shift @queue)) {
        for my $other ($node + 1, $node + $n, $node - $n) {
            next if $other < 0 || $other >= $n * $n;
            my $cost = $best[$node] + $other * 31 % 9 + 1;
            next if $cost >= $best[$other];
            $best[$other] = $cost;
            push @queue, $other;
        }
    }
    return $best[-1];
}

my %workloads = (
    parse => sub {
        my %size;
        for (1 .. $_[0]{n}) {
            while ($text =~ /^(\d+) (\w+) (\S+) (\S+) (\d+)$/mg) { $size{ $5 % 10 } += length $3 }
        }
        return scalar %size;
    },
    page => sub {
        my $page = '';
        for my $row (@rows[0 .. $_[0]{n} - 1]) {
            (my $name = $row->{name}) =~ s/([&<>"])/'&#' . ord($1) . ';'/ge;
            $page .= "<tr><td>$row->{id}</td><td>$name</td></tr>";
        }
        return length $page;
    },
    json => sub { return length encode_json(decode_json(encode_json([ @rows[0 .. $_[0]{n} - 1] ]))) },
    hash => sub { my $last = ''; $last = sha256_hex($text . $last) for 1 .. $_[0]{n}; return $last },
    compress => sub { return length Compress::Zlib::compress($text x $_[0]{n}) },
    routes => sub { return routes($_[0]{n}) },
    authorise => sub { my $last; $last = hmac_sha256_base64('header.body', 'secret') for 1 .. $_[0]{n}; return $last },
    allocate => sub { my %made = map { ("row-$_" => { id => $_, next => [$_] }) } 1 .. $_[0]{n}; return scalar keys %made },
    apiThenWork => sub { return length(fetch($_[0]{delay_ms})) + length encode_json([ @rows[0 .. $_[0]{n} - 1] ]) },
    child => sub {
        my $child = open2(my $out, my $in, 'sort', '-k4');
        print {$in} $text x $_[0]{n};
        close $in;
        my $lines = () = <$out>;
        waitpid $child, 0;
        return $lines;
    },
);

my $api = "http://$ENV{AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation";
my $work = $workloads{ $ENV{WORKLOAD} };
while (1) {
    my $next = $http->get("$api/next");
    # The client sends header and body apart. Without this, the second waits for the acknowledgement of the first, up to 40 ms.
    setsockopt($http->{handle}{fh}, IPPROTO_TCP, TCP_NODELAY, 1) if $http->{handle};
    my $id = $next->{headers}{'lambda-runtime-aws-request-id'};
    my $result = eval { $work->(decode_json($next->{content})) };
    my ($path, $body) = $@ ? ('error', { errorMessage => "$@", errorType => 'Error' }) : ('response', { result => $result });
    $http->post("$api/$id/$path", { content => encode_json($body), headers => { 'content-type' => 'application/json' } });
}
