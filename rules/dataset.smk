rule build_injection_manifest:
    input:
        sources="results/catalogue/sources.json",
        parent="results/catalogue/parent.json",
        code=code("dark_halo_scope.injection.manifest", "spark"),
    output:
        "results/datasets/{dataset}/manifest.json",
    log:
        "logs/build_injection_manifest/{dataset}.log",
    benchmark:
        "benchmarks/build_injection_manifest/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("build"),
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=240,
    params:
        settings=settings("dataset", "manifest"),
    message:
        "Deciding what {wildcards.dataset} injects where (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.injection.manifest --"
        " --sources {input.sources} --parent {input.parent}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule inject_stamps:
    input:
        survey="results/survey.json",
        manifest="results/datasets/{dataset}/manifest.json",
        coadds="results/datasets/{dataset}/coadds.json",
        sources="results/catalogue/sources.json",
        code=code("dark_halo_scope.injection.stamps", "spark"),
    output:
        "results/datasets/{dataset}/stamps.json",
    log:
        "logs/inject_stamps/{dataset}.log",
    benchmark:
        "benchmarks/inject_stamps/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("build"),
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=1440,
    params:
        settings=settings("dataset", "stamps"),
    message:
        "Injecting the arcs of {wildcards.dataset} (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.injection.stamps --"
        " --survey {input.survey} --manifest {input.manifest} --coadds {input.coadds} --sources {input.sources}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule list_stored_stamps:
    input:
        code=code("dark_halo_scope.injection.list_stored", "spark"),
    output:
        "results/datasets/{dataset}/manifest.json",
    log:
        "logs/list_stored_stamps/{dataset}.log",
    benchmark:
        "benchmarks/list_stored_stamps/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("existing"),
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=480,
    params:
        settings=settings("dataset", "stored"),
    message:
        "Listing the stored stamps of {wildcards.dataset} (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.injection.list_stored --"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule adopt_stored_stamps:
    input:
        manifest="results/datasets/{dataset}/manifest.json",
        coadds="results/datasets/{dataset}/coadds.json",
        code=code("dark_halo_scope.injection.adopt_stored", "spark"),
    output:
        "results/datasets/{dataset}/stamps.json",
    log:
        "logs/adopt_stored_stamps/{dataset}.log",
    benchmark:
        "benchmarks/adopt_stored_stamps/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("existing"),
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=1440,
    params:
        settings=settings("dataset", "stored"),
    message:
        "Taking over the stored stamps of {wildcards.dataset} (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.injection.adopt_stored"
        " -- --manifest {input.manifest} --coadds {input.coadds}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule list_parent_galaxies:
    input:
        parent="results/catalogue/parent.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.injection.list_parents", "spark"),
    output:
        "results/datasets/{dataset}/manifest.json",
    log:
        "logs/list_parent_galaxies/{dataset}.log",
    benchmark:
        "benchmarks/list_parent_galaxies/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("parent"),
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        settings=settings("dataset", "parent"),
    message:
        "Listing the galaxies of the parent sample that {wildcards.dataset} has"
    shell:
        "exec python -m dark_halo_scope.injection.list_parents --parent {input.parent} --lenses {input.lenses}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule cut_parent_galaxies:
    input:
        manifest="results/datasets/{dataset}/manifest.json",
        coadds="results/datasets/{dataset}/coadds.json",
        code=code("dark_halo_scope.injection.cut_parents", "spark"),
    output:
        "results/datasets/{dataset}/stamps.json",
    log:
        "logs/cut_parent_galaxies/{dataset}.log",
    benchmark:
        "benchmarks/cut_parent_galaxies/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("parent"),
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=1440,
    params:
        settings=settings("dataset", "stamps"),
    message:
        "Cutting out the galaxies of {wildcards.dataset} (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.injection.cut_parents"
        " -- --manifest {input.manifest} --coadds {input.coadds}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule cut_negatives:
    input:
        confusers="results/catalogue/confusers.json",
        stamps="results/datasets/{dataset}/stamps.json",
        coadds="results/datasets/{dataset}/coadds.json",
        code=code("dark_halo_scope.injection.cut_negatives", "spark"),
    output:
        "results/datasets/{dataset}/negatives.json",
    log:
        "logs/cut_negatives/{dataset}.log",
    benchmark:
        "benchmarks/cut_negatives/{dataset}.tsv"
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=480,
    params:
        settings=settings("dataset", "negatives"),
        stamps=settings("dataset", "stamps"),
    message:
        "Cutting out the confusers of {wildcards.dataset} (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.injection.cut_negatives"
        " -- --confusers {input.confusers} --stamps {input.stamps} --coadds {input.coadds}"
        " --stamp-settings {params.stamps:q}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule check_dataset:
    input:
        stamps="results/datasets/{dataset}/stamps.json",
        negatives=negatives_of,
        code=code("dark_halo_scope.evaluation.check_dataset", "spark"),
    output:
        "results/datasets/{dataset}/quality.json",
    log:
        "logs/check_dataset/{dataset}.log",
    benchmark:
        "benchmarks/check_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("build", "existing", "parent"),
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        settings=settings("dataset", "quality"),
    message:
        "Checking {wildcards.dataset}: splits, pixels, shortcuts"
    shell:
        "exec python -m dark_halo_scope.evaluation.check_dataset --stamps {input.stamps}"
        " --negatives {input.negatives}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule pack_images:
    input:
        stamps="results/datasets/{dataset}/stamps.json",
        quality="results/datasets/{dataset}/quality.json",
        negatives=negatives_of,
        code=code("dark_halo_scope.images.pack", "train"),
    output:
        "results/datasets/{dataset}/packed.json",
    log:
        "logs/pack_images/{dataset}.log",
    benchmark:
        "benchmarks/pack_images/{dataset}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        settings=settings("dataset", "pack"),
    message:
        "Packing {wildcards.dataset} into memory-mapped arrays"
    shell:
        "exec python -m dark_halo_scope.images.pack --stamps {input.stamps} --quality {input.quality}"
        " --negatives {input.negatives}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"
