/* "wavclock": an ALSA capture device that plays a raw file as a sound card with a clock of its own.
 *
 * For tests without hardware. Frame k of the file is "converted" at
 *
 *     frame0 + k / (rate * (1 + ppm * 1e-6))      on CLOCK_MONOTONIC
 *
 * whether or not anybody reads, as on a real card. A reader that is a buffer late gets a real xrun
 * (-EPIPE) and, once it has restarted the stream, finds the world where it is by then: what lay
 * between is lost. Before frame 0 and after the file's end the card delivers silence.
 *
 * Fields of the PCM definition (see virtual_card.py, which writes it):
 *
 *     file      raw interleaved samples
 *     rate, channels, format    of the file, and all that the card offers
 *     ppm       by how much its clock runs fast (0)
 *     loop      1: after the file's end it begins again; 0: silence (0)
 *     align     1: frame 0 on the next whole second of UTC; 0: as the stream starts (0)
 *     truth     a JSON file that is written as the stream starts: when frame 0 was or will be
 *     control   a file whose appearance commands a fault, and which the card then removes:
 *                   unplug     the device is gone for good (-ENODEV)
 *                   stall      the clock stops; the device is there, but delivers no more
 *                   skip N     the next N frames are lost, with no xrun and no flag
 *                   play FILE  from now on the samples are those of another file, as long and of
 *                              the same format
 *                   ppm X      from now on the clock runs fast by so much; the truth is written anew
 */
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define MAX_SKIPS 64
#define CONTROL_EVERY_NS 20000000LL
#define MAX_PERIOD_FRAMES 65536
#define MIN_PERIOD_FRAMES 64

/* From stream position `from` on, `dropped` frames of the file have been left out in all. */
struct skip {
	int64_t from;
	int64_t dropped;
};

struct card {
	snd_pcm_ioplug_t io;

	/* what the configuration says */
	char *file_path, *truth_path, *control_path;
	long rate, channels, align, loop;
	snd_pcm_format_t format;
	double ppm;

	/* the file */
	const char *samples;
	size_t bytes;
	int64_t frames;
	size_t frame_bytes;

	/* the clock */
	int timer_fd;
	bool frame0_is_set;
	int64_t frame0_ns, frame0_utc_ns;

	/* the stream: restarted after each xrun */
	bool running, stalled, unplugged;
	int64_t stalled_at;
	int64_t origin; /* frame of the file at stream position 0 */
	int64_t taken;	/* frames that the reader has taken */
	struct skip skips[MAX_SKIPS];
	int skip_count;
	int64_t control_read_ns;
};

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static double true_rate(const struct card *card)
{
	return card->rate * (1 + card->ppm * 1e-6);
}

/* The number of the file's frames that have been converted by now; negative before frame 0. */
static int64_t converted(const struct card *card)
{
	return (int64_t)floor((now_ns(CLOCK_MONOTONIC) - card->frame0_ns) * 1e-9 * true_rate(card));
}

static int64_t dropped_before(const struct card *card, int64_t position)
{
	for (int i = card->skip_count; i > 0; i--)
		if (position >= card->skips[i - 1].from)
			return card->skips[i - 1].dropped;
	return 0;
}

/* The number of frames that the stream has delivered to its buffer since it was started. While
 * frames are being lost, it stands still. */
static int64_t produced(const struct card *card)
{
	if (card->stalled)
		return card->stalled_at;

	int64_t position = converted(card) - card->origin;

	if (card->skip_count > 0) {
		const struct skip *last = &card->skips[card->skip_count - 1];

		position -= last->dropped;
		if (position < last->from)
			position = last->from;
	}
	return position < 0 ? 0 : position;
}

static void set_frame0(struct card *card)
{
	int64_t monotonic = now_ns(CLOCK_MONOTONIC);
	int64_t utc = now_ns(CLOCK_REALTIME);
	int64_t wait = card->align ? NS_PER_S - utc % NS_PER_S : 0;

	card->frame0_ns = monotonic + wait;
	card->frame0_utc_ns = utc + wait;
	card->frame0_is_set = true;
}

static void write_truth(const struct card *card)
{
	FILE *truth;

	if (!card->truth_path)
		return;
	truth = fopen(card->truth_path, "w");
	if (!truth) {
		SNDERR("wavclock: cannot write %s", card->truth_path);
		return;
	}
	fprintf(truth,
		"{\"frame0_monotonic_ns\": %lld, \"frame0_utc_ns\": %lld, \"rate_hz\": %.9f, "
		"\"period_frames\": %lu, \"buffer_frames\": %lu}\n",
		(long long)card->frame0_ns, (long long)card->frame0_utc_ns, true_rate(card),
		(unsigned long)card->io.period_size, (unsigned long)card->io.buffer_size);
	fclose(truth);
}

/* The reader polls the timer, which stands for the card's interrupt; it ticks so often that the end
 * of a period is noticed within a thirty-second of it. */
static void set_timer(struct card *card, bool on)
{
	struct itimerspec ticks = { 0 };

	if (on) {
		int64_t tick = (int64_t)(card->io.period_size / true_rate(card) * NS_PER_S / 32);

		ticks.it_interval.tv_sec = tick / NS_PER_S;
		ticks.it_interval.tv_nsec = tick % NS_PER_S;
		ticks.it_value = ticks.it_interval;
	}
	timerfd_settime(card->timer_fd, 0, &ticks, NULL);
}

static int card_start(snd_pcm_ioplug_t *io)
{
	struct card *card = io->private_data;

	bool first = !card->frame0_is_set;

	if (card->unplugged)
		return -ENODEV;
	if (first)
		set_frame0(card);
	card->origin = converted(card);
	card->taken = 0;
	card->skip_count = 0;
	card->running = true;
	set_timer(card, true);
	if (first)
		write_truth(card);
	return 0;
}

static int card_stop(snd_pcm_ioplug_t *io)
{
	struct card *card = io->private_data;

	card->running = false;
	set_timer(card, false);
	return 0;
}

static int card_prepare(snd_pcm_ioplug_t *io)
{
	struct card *card = io->private_data;

	if (card->unplugged)
		return -ENODEV;
	card->taken = 0;
	card->skip_count = 0;
	return 0;
}

static int map_file(struct card *card);

static void play(struct card *card, const char *path)
{
	const char *before = card->samples;
	size_t bytes = card->bytes;

	free(card->file_path);
	card->file_path = strdup(path);
	if (card->file_path && map_file(card) == 0 && before)
		munmap((void *)before, bytes);
}

/* Frames keep their numbers: the frame that is converted now is the same before and after. */
static void change_clock(struct card *card, double ppm)
{
	double here = (now_ns(CLOCK_MONOTONIC) - card->frame0_ns) * 1e-9 * true_rate(card);
	int64_t before_ns = card->frame0_ns;

	card->ppm = ppm;
	card->frame0_ns = now_ns(CLOCK_MONOTONIC) - (int64_t)(here / true_rate(card) * NS_PER_S);
	card->frame0_utc_ns += card->frame0_ns - before_ns;
	write_truth(card);
}

static void skip(struct card *card, int64_t frames)
{
	int64_t here = produced(card);

	if (card->skip_count == MAX_SKIPS || frames <= 0) {
		SNDERR("wavclock: skip %lld refused", (long long)frames);
		return;
	}
	card->skips[card->skip_count].from = here;
	card->skips[card->skip_count].dropped = dropped_before(card, here) + frames;
	card->skip_count++;
}

static void obey(struct card *card, const char *command)
{
	long long frames;
	double ppm;
	char path[256];

	if (!strncmp(command, "unplug", 6)) {
		card->unplugged = true;
		snd_pcm_ioplug_set_state(&card->io, SND_PCM_STATE_DISCONNECTED);
	} else if (!strncmp(command, "stall", 5)) {
		card->stalled_at = produced(card);
		card->stalled = true;
	} else if (sscanf(command, "skip %lld", &frames) == 1) {
		skip(card, frames);
	} else if (sscanf(command, "play %255s", path) == 1) {
		play(card, path);
	} else if (sscanf(command, "ppm %lf", &ppm) == 1) {
		change_clock(card, ppm);
	} else {
		SNDERR("wavclock: unknown command %s", command);
	}
}

/* Looks for a command now and then; returns -ENODEV once the card is unplugged. */
static int look_for_command(struct card *card)
{
	int64_t now = now_ns(CLOCK_MONOTONIC);
	char command[280] = "";

	if (card->control_path && card->running && now - card->control_read_ns >= CONTROL_EVERY_NS) {
		FILE *control = fopen(card->control_path, "r");

		card->control_read_ns = now;
		if (control) {
			if (fgets(command, sizeof(command), control)) {
				unlink(card->control_path);
				obey(card, command);
			}
			fclose(control);
		}
	}
	return card->unplugged ? -ENODEV : 0;
}

static snd_pcm_sframes_t card_pointer(snd_pcm_ioplug_t *io)
{
	struct card *card = io->private_data;
	int error = look_for_command(card);

	if (error < 0)
		return error;
	if (!card->running)
		return 0;

	int64_t position = produced(card);

	/* A full buffer is an overrun already: its position could not be told from an empty one. */
	if (position - card->taken >= (int64_t)io->buffer_size)
		return -EPIPE;
	return position % io->buffer_size;
}

static void copy_frame(const struct card *card, int64_t position, char *to)
{
	int64_t k = card->origin + position + dropped_before(card, position);

	if (card->loop && k >= 0)
		k %= card->frames;
	if (k < 0 || k >= card->frames)
		memset(to, 0, card->frame_bytes);
	else
		memcpy(to, card->samples + k * card->frame_bytes, card->frame_bytes);
}

static snd_pcm_sframes_t card_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas,
				       snd_pcm_uframes_t offset, snd_pcm_uframes_t size)
{
	struct card *card = io->private_data;
	char *to = (char *)areas->addr + (areas->first + areas->step * offset) / 8;

	if (card->unplugged)
		return -ENODEV;
	for (snd_pcm_uframes_t i = 0; i < size; i++, to += card->frame_bytes)
		copy_frame(card, card->taken + i, to);
	card->taken += size;
	return size;
}

static int card_delay(snd_pcm_ioplug_t *io, snd_pcm_sframes_t *delay)
{
	struct card *card = io->private_data;

	*delay = card->running ? produced(card) - card->taken : 0;
	return 0;
}

static int card_poll_revents(snd_pcm_ioplug_t *io, struct pollfd *fds, unsigned int count,
			     unsigned short *revents)
{
	struct card *card = io->private_data;
	uint64_t ticks;

	*revents = 0;
	if (look_for_command(card) < 0) {
		*revents = POLLERR | POLLIN;
		return 0;
	}
	if (count > 0 && (fds->revents & POLLIN)) {
		if (read(card->timer_fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
			return -errno;
		if (produced(card) - card->taken >= (int64_t)io->period_size)
			*revents = POLLIN;
	}
	return 0;
}

static void free_card(struct card *card)
{
	if (card->samples)
		munmap((void *)card->samples, card->bytes);
	if (card->timer_fd >= 0)
		close(card->timer_fd);
	free(card->file_path);
	free(card->truth_path);
	free(card->control_path);
	free(card);
}

static int card_close(snd_pcm_ioplug_t *io)
{
	free_card(io->private_data);
	return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
	.start = card_start,
	.stop = card_stop,
	.pointer = card_pointer,
	.transfer = card_transfer,
	.close = card_close,
	.prepare = card_prepare,
	.poll_revents = card_poll_revents,
	.delay = card_delay,
};

static int read_text(snd_config_t *node, char **into)
{
	const char *text;
	int error = snd_config_get_string(node, &text);

	if (error < 0)
		return error;
	free(*into);
	*into = strdup(text);
	return *into ? 0 : -ENOMEM;
}

static int read_format(snd_config_t *node, snd_pcm_format_t *into)
{
	const char *text;
	int error = snd_config_get_string(node, &text);

	if (error < 0)
		return error;
	*into = snd_pcm_format_value(text);
	return *into == SND_PCM_FORMAT_UNKNOWN ? -EINVAL : 0;
}

static int read_number(snd_config_t *node, double *into)
{
	char *text;
	int error = snd_config_get_ascii(node, &text);

	if (error < 0)
		return error;
	*into = atof(text);
	free(text);
	return 0;
}

static int read_field(struct card *card, const char *id, snd_config_t *node)
{
	if (!strcmp(id, "comment") || !strcmp(id, "type") || !strcmp(id, "hint"))
		return 0;
	if (!strcmp(id, "file"))
		return read_text(node, &card->file_path);
	if (!strcmp(id, "truth"))
		return read_text(node, &card->truth_path);
	if (!strcmp(id, "control"))
		return read_text(node, &card->control_path);
	if (!strcmp(id, "format"))
		return read_format(node, &card->format);
	if (!strcmp(id, "ppm"))
		return read_number(node, &card->ppm);
	if (!strcmp(id, "rate"))
		return snd_config_get_integer(node, &card->rate);
	if (!strcmp(id, "channels"))
		return snd_config_get_integer(node, &card->channels);
	if (!strcmp(id, "loop"))
		return snd_config_get_integer(node, &card->loop);
	if (!strcmp(id, "align"))
		return snd_config_get_integer(node, &card->align);
	return -ENOENT;
}

static int read_configuration(struct card *card, snd_config_t *conf)
{
	snd_config_iterator_t i, next;

	snd_config_for_each(i, next, conf) {
		snd_config_t *node = snd_config_iterator_entry(i);
		const char *id;
		int error;

		if (snd_config_get_id(node, &id) < 0)
			continue;
		error = read_field(card, id, node);
		if (error < 0) {
			SNDERR("wavclock: field %s: %s", id, snd_strerror(error));
			return -EINVAL;
		}
	}
	if (!card->file_path || card->rate <= 0 || card->channels <= 0 ||
	    card->format == SND_PCM_FORMAT_UNKNOWN) {
		SNDERR("wavclock: file, rate, channels and format are needed");
		return -EINVAL;
	}
	return 0;
}

static int map_file(struct card *card)
{
	struct stat status;
	void *samples;
	int fd = open(card->file_path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size == 0) {
		SNDERR("wavclock: cannot open %s, or it is empty", card->file_path);
		if (fd >= 0)
			close(fd);
		return -ENOENT;
	}
	samples = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (samples == MAP_FAILED)
		return -errno;
	/* A card does not wait for a disk. Where locking is not allowed, the cache has to do. */
	(void)mlock(samples, status.st_size);
	card->samples = samples;
	card->bytes = status.st_size;
	card->frame_bytes = card->channels * snd_pcm_format_physical_width(card->format) / 8;
	card->frames = card->bytes / card->frame_bytes;
	return 0;
}

static int offer_parameters(struct card *card)
{
	snd_pcm_ioplug_t *io = &card->io;
	unsigned int access[] = { SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_MMAP_INTERLEAVED };
	unsigned int format[] = { card->format };
	int error = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_ACCESS, 2, access);

	if (error >= 0)
		error = snd_pcm_ioplug_set_param_list(io, SND_PCM_IOPLUG_HW_FORMAT, 1, format);
	if (error >= 0)
		error = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_CHANNELS,
							card->channels, card->channels);
	if (error >= 0)
		error = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_RATE, card->rate,
							card->rate);
	if (error >= 0)
		error = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIOD_BYTES,
							MIN_PERIOD_FRAMES * card->frame_bytes,
							MAX_PERIOD_FRAMES * card->frame_bytes);
	if (error >= 0)
		error = snd_pcm_ioplug_set_param_minmax(io, SND_PCM_IOPLUG_HW_PERIODS, 2, 64);
	return error;
}

static int create(struct card *card, const char *name, snd_pcm_stream_t stream, int mode)
{
	card->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (card->timer_fd < 0)
		return -errno;
	card->io.version = SND_PCM_IOPLUG_VERSION;
	card->io.name = "wavclock virtual sound card";
	card->io.callback = &callbacks;
	card->io.private_data = card;
	card->io.poll_fd = card->timer_fd;
	card->io.poll_events = POLLIN;
	card->io.flags = SND_PCM_IOPLUG_FLAG_MONOTONIC;
	return snd_pcm_ioplug_create(&card->io, name, stream, mode);
}

SND_PCM_PLUGIN_DEFINE_FUNC(wavclock)
{
	struct card *card;
	int error;

	(void)root;
	if (stream != SND_PCM_STREAM_CAPTURE)
		return -EINVAL;
	card = calloc(1, sizeof(*card));
	if (!card)
		return -ENOMEM;
	card->timer_fd = -1;
	card->format = SND_PCM_FORMAT_UNKNOWN;

	error = read_configuration(card, conf);
	if (error >= 0)
		error = map_file(card);
	if (error >= 0)
		error = create(card, name, stream, mode);
	if (error < 0) {
		free_card(card);
		return error;
	}
	error = offer_parameters(card);
	if (error < 0) {
		snd_pcm_ioplug_delete(&card->io); /* closes, and so frees, the card */
		return error;
	}
	*pcmp = card->io.pcm;
	return 0;
}
SND_PCM_PLUGIN_SYMBOL(wavclock);
